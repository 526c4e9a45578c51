"""Overrides, limits and the audit log, connected by the plugin."""

import json

import pytest
from agents import Agent
from gateway_plugins.security.audit.verify import verify
from gateway_plugins.security.keys.key_ring import make_key

from gateway_core.testing import gateway_in_memory, script
from tests.plugins.security.support import key_table

URL = "/security/override"
ANN, ROOT = make_key(), make_key()
ADMIN = {"authorization": f"Bearer {ROOT.text}"}
GRANT = {"kind": "agent", "pattern": "labs/*", "principal": "ann", "reason": "demo"}


def serving(folder, **audit):
    agent = Agent(name="x", model=script("hello", "again", "more"))
    table = {
        "keys": {"ann": key_table(ANN), "root": key_table(ROOT, admin=True)},
        "limits": {"requests_per_minute": 100},
        "audit": audit,
    }
    config = {"state": {"folder": str(folder)}, "plugins": {"security": table}}
    return gateway_in_memory({"labs/X": agent}, config=config, api_key=ANN.text)


async def ask(g):
    body = {"model": "labs/X", "messages": [{"role": "user", "content": "canary"}]}
    return await g.http.post("/v1/chat/completions", json=body)


async def test_a_granted_override_decides_and_is_recorded(tmp_path):
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
    recorded = [
        (r["event"].removeprefix("agent.security."), r.get("subject"), r.get("allowed"), r.get("override"))
        for r in map(json.loads, text.splitlines())
    ]
    one = granted["id"]
    assert recorded == [
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


async def test_a_grant_survives_a_restart(tmp_path):
    async with serving(tmp_path) as g:
        assert (await g.http.post(URL, json=GRANT, headers=ADMIN)).status_code == 201
    async with serving(tmp_path) as g:
        assert (await ask(g)).status_code == 200


@pytest.mark.parametrize(("on_full", "status"), [("serve", 200), ("refuse", 503)])
async def test_on_a_full_disk_changes_are_refused_and_on_full_decides_about_runs(tmp_path, on_full, status):
    async with serving(tmp_path) as g:
        assert (await g.http.post(URL, json=GRANT, headers=ADMIN)).status_code == 201
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    async with serving(tmp_path, on_full=on_full) as g:
        refused = await g.http.post(URL, json=GRANT, headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
        assert len((await g.http.get(URL, headers=ADMIN)).json()["data"]) == 1
        assert (await ask(g)).status_code == status
