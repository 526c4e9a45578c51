"""`/security/override` over HTTP: grant, list, get and revoke, and errors in OpenAI's format."""

from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import httpx2
import pytest
from gateway_plugins.security.access_query import AccessQuery
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.overrides.routes import OverrideRoutes
from gateway_plugins.security.settings import OverrideSettings

from gateway_core import PermissionDeniedError, Principal, UnavailableError, hookimpl
from gateway_core.testing import GatewayInMemory, gateway_in_memory

URL = "/security/override"
GOOD = {"kind": "agent", "pattern": "labs/*", "principal": "ann", "reason": "demo", "ttl_seconds": 60}


@asynccontextmanager
async def serving(folder=None, *, recorded=None, **settings):
    """A gateway with the routes, and the manager behind them; `x-who` names the caller."""
    store = OverrideManager(OverrideSettings(**settings), folder, lambda *_: None)

    async def granter(request):
        who = request.headers.get("x-who", "root")
        if who == "user":
            raise PermissionDeniedError("this needs an admin key", code="admin_required")
        return Principal(who, admin=True)

    class Routes:
        def __init__(self, *_):
            pass

        @hookimpl
        def routes(self):
            return OverrideRoutes(store, granter, recorded or AsyncMock()).routes

    async with gateway_in_memory({}, plugins={"routes": Routes}) as g, store:
        yield g, store


async def post(g: GatewayInMemory, body, **headers) -> httpx2.Response:
    return await g.http.post(URL, json=body, headers={f"x-{name}": value for name, value in headers.items()})


async def test_grant_list_get_and_revoke():
    async with serving() as (g, store):
        answer = await post(g, GOOD)
        assert answer.status_code == 201
        granted = answer.json()
        assert (
            granted.items()
            >= {
                "object": "security.override",
                "kind": "agent",
                "pattern": "labs/*",
                "principal": "ann",
                "reason": "demo",
                "granted_by": "root",
                "seconds_left": 60.0,
            }.items()
        )
        assert store.deciding(AccessQuery("agent", "labs/x", "ann")).id == granted["id"]

        [listed] = (await g.http.get(URL)).json()["data"]
        assert 0 < listed.pop("seconds_left") <= 60.0
        assert listed == {name: value for name, value in granted.items() if name != "seconds_left"}
        assert (await g.http.get(f"{URL}/{granted['id']}")).json()["id"] == granted["id"]

        gone = await g.http.delete(f"{URL}/{granted['id']}")
        assert gone.json() == {"id": granted["id"], "object": "security.override.deleted", "deleted": True}
        assert store.deciding(AccessQuery("agent", "labs/x", "ann")) is None
        assert (await g.http.get(URL)).json() == {"object": "list", "data": []}
        for method in ("GET", "DELETE"):
            answer = await g.http.request(method, f"{URL}/{granted['id']}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "override_not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pattern": "labs/**"}, "pattern"),
        ({"pattern": "*"}, "pattern"),
        ({"pattern": "gateway:mail"}, "pattern"),
        ({"kind": "tool", "pattern": "shell:mail"}, "pattern"),
        ({"kind": "tool", "pattern": "gateway:*"}, "pattern"),
        ({"reason": " "}, "reason"),
        ({"kind": "admin"}, "kind"),
        ({"ttl_seconds": 86401}, "ttl_seconds"),
        ({"ttl_secs": 5}, "ttl_secs"),
    ],
)
async def test_an_invalid_grant_is_answered_422_with_the_field(change, field):
    async with serving() as (g, store):
        answer = await post(g, {**GOOD, **change})
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", field, "invalid_override")
        assert store.active() == []


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"[]", 400), (b"{", 400), (b"\xff", 400), (b'{"a":"' + b"x" * 20_000, 413)]
)
async def test_invalid_bodies(body, status):
    async with serving() as (g, _):
        answer = await g.http.post(URL, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_the_granter_authorizes_every_route():
    async with serving() as (g, store):
        granted = (await post(g, GOOD)).json()["id"]
        for method, path in [("GET", URL), ("GET", f"{URL}/{granted}"), ("DELETE", f"{URL}/{granted}"), ("POST", URL)]:
            answer = await g.http.request(method, path, json=GOOD, headers={"x-who": "user"})
            assert answer.status_code == 403, (method, path)
        assert len(store.active()) == 1


async def test_granters_restricts_changes():
    async with serving(granters=["root"]) as (g, store):
        granted = (await post(g, GOOD)).json()["id"]
        assert (await post(g, GOOD, who="other")).status_code == 403
        assert (await g.http.delete(f"{URL}/{granted}", headers={"x-who": "other"})).status_code == 403
        assert len((await g.http.get(URL, headers={"x-who": "other"})).json()["data"]) == 1
        assert len(store.active()) == 1


async def test_an_override_that_cannot_be_stored_is_answered_503(tmp_path):
    import sqlite3

    async with serving(tmp_path) as (g, store):
        other = sqlite3.connect(tmp_path / "overrides.db", isolation_level=None)
        other.execute("DROP TABLE overrides")
        other.close()
        answer = await post(g, GOOD)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_not_writable")
        assert str(tmp_path) not in answer.text
        assert store.active() == []


async def test_an_override_that_cannot_be_recorded_is_not_granted():
    async def recorded():
        raise UnavailableError("the audit log cannot be written")

    async with serving(recorded=recorded) as (g, store):
        assert (await post(g, GOOD)).status_code == 503
        assert store.active() == []
