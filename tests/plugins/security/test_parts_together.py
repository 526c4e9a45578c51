"""Overrides, limits and the audit log as a plugin puts them together: what is granted is decided and on record."""

import json
from contextlib import asynccontextmanager

import pytest
from agents import Agent
from gateway_plugins.security.audit_log import AuditLog, AuditSettings
from gateway_plugins.security.audit_verify import verify
from gateway_plugins.security.limits import HeadersInReach, Limits, LimitSettings
from gateway_plugins.security.override_routes import override_routes
from gateway_plugins.security.overrides import OverrideSettings, OverrideStore
from gateway_plugins.security.questions import Question
from starlette.middleware import Middleware

from gateway_core import Decision, Principal, hookimpl
from gateway_core.testing import gateway_in_memory, script

URL = "/security/override"
ADMIN = {"authorization": "Bearer root"}
GRANT = {"kind": "agent", "pattern": "labs/*", "principal": "ann", "reason": "demo"}


def security(folder, **settings):
    class Together:
        """Everybody is who the key says, and nobody may do anything but by an override."""

        def __init__(self, gateway, _):
            self.audit = AuditLog(AuditSettings(**settings), folder, gateway.report)
            self.overrides = OverrideStore(OverrideSettings(), folder, self.announce)
            self.limits = Limits(LimitSettings(requests_per_minute=100), folder, gateway.report)

        def announce(self, event):
            override = event.override
            self.audit.event(
                event.name,
                admin=True,
                override=override.id,
                kind=override.kind,
                pattern=override.pattern,
                principal=override.principal,
                by=event.by,
                reason=override.reason,
                expires=override.expires,
            )

        async def granter(self, request):
            # The core let an admin through, which is on record before anything is changed.
            if request.method != "GET":
                await self.audit.settled()
            return await self.authenticate(request)

        @hookimpl
        def lifespan(self):
            @asynccontextmanager
            async def held():
                async with self.audit, self.overrides, self.limits:
                    yield

            return held()

        @hookimpl
        def middleware(self):
            return [Middleware(HeadersInReach)]

        @hookimpl
        def admin_routes(self):
            return override_routes(self.overrides, self.granter, self.audit.settled)

        @hookimpl
        async def authenticate(self, request):
            who = request.headers["authorization"].removeprefix("Bearer ")
            return Principal(who, admin=who == "root")

        @hookimpl
        async def authorize(self, principal, entry):
            question = Question("agent", entry.id, principal.id, namespace=entry.namespace)
            override = self.overrides.deciding(question)
            if override is None:
                return Decision(False, "none")
            return Decision(True, "override", override.pattern, override=override.id)

        @hookimpl
        def admission(self, run, entry):
            @asynccontextmanager
            async def place():
                self.audit.check()
                async with self.limits.admission(run.principal.id, entry.id):
                    yield

            return place()

        @hookimpl
        def on_decision(self, made):
            self.audit.decision(made)

        @hookimpl
        def on_run_end(self, run, outcome):
            self.limits.spent(run.principal.id, outcome.usage)

    return Together


def serving(folder, **settings):
    agent = Agent(name="x", model=script("hello", "again", "more"))
    return gateway_in_memory({"labs/X": agent}, plugins={"together": security(folder, **settings)}, api_key="ann")


async def ask(g):
    body = {"model": "labs/X", "messages": [{"role": "user", "content": "canary"}]}
    return await g.http.post("/v1/chat/completions", json=body)


async def test_what_is_granted_is_decided_and_on_record(tmp_path):
    async with serving(tmp_path) as g:
        assert (await ask(g)).status_code == 403
        assert (await g.http.post(URL, json=GRANT)).status_code == 403
        granted = (await g.http.post(URL, json=GRANT, headers=ADMIN)).json()
        answer = await ask(g)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-remaining-requests"] == "99"
        assert [model["id"] for model in (await g.http.get("/v1/models")).json()["data"]] == ["labs/X"]
        assert (await g.http.delete(f"{URL}/{granted['id']}", headers=ADMIN)).status_code == 200
        assert (await ask(g)).status_code == 403
        assert (await g.http.get("/v1/models")).json()["data"] == []
    text = (tmp_path / "audit.jsonl").read_text()
    assert "canary" not in text
    told = [
        (r["event"].removeprefix("agent.security."), r.get("subject"), r.get("allowed"), r.get("override"))
        for r in map(json.loads, text.splitlines())
    ]
    one = granted["id"]
    assert told == [
        ("decision", "labs/X", False, None),
        ("decision", URL, False, None),
        ("decision", URL, True, None),
        ("override.created", None, None, one),
        ("decision", "labs/X", True, one),
        ("decision", f"{URL}/{one}", True, None),
        ("override.revoked", None, None, one),
        ("decision", "labs/X", False, None),
    ]
    assert verify(tmp_path / "audit.jsonl").ok


async def test_a_grant_is_there_after_a_restart(tmp_path):
    async with serving(tmp_path) as g:
        assert (await g.http.post(URL, json=GRANT, headers=ADMIN)).status_code == 201
    async with serving(tmp_path) as g:
        assert (await ask(g)).status_code == 200


@pytest.mark.parametrize(("on_full", "status"), [("serve", 200), ("refuse", 503)])
async def test_on_a_full_disk_nothing_is_changed_and_the_setting_decides_about_runs(tmp_path, on_full, status):
    async with serving(tmp_path) as g:
        assert (await g.http.post(URL, json=GRANT, headers=ADMIN)).status_code == 201
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    async with serving(tmp_path, on_full=on_full) as g:
        refused = await g.http.post(URL, json=GRANT, headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
        assert len((await g.http.get(URL, headers=ADMIN)).json()["data"]) == 1
        assert (await ask(g)).status_code == status
