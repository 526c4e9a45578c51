"""Recorded errors: lookup by request id, deduplication and persistence, without user content."""

import pytest
from agents import Agent, function_tool
from gateway_plugins.error_recorder.ring_buffer import ErrorRing
from gateway_plugins.error_recorder.storage import load, save

from gateway_core import GatewayError
from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal


def failing() -> Agent:
    @function_tool(failure_error_function=None)
    def look(what: str) -> str:
        """Look."""
        raise ValueError("canary-of-an-error")

    turn = call("look", what="canary-of-an-argument")
    return Agent(name="x", tools=[look], model=script(turn, turn, turn, turn))


async def ask(g, request_id: str, model: str = "X") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "canary-of-a-prompt"}]}
    await g.http.post("/v1/chat/completions", json=body, headers={"x-request-id": request_id})


async def test_an_error_is_found_by_its_request_id():
    async with gateway_in_memory({"X": failing()}) as g:
        await ask(g, "r1")
        answer = await g.http.get("/admin/agents/errors/r1")
        [error] = answer.json()["errors"]
        assert (error["stage"], error["kind"], error["agent_id"]) == ("tool", "ToolError", "X")
        assert error["principal_id"] == "local"
        places = [place for cause in error["traceback"] for place in cause["stack"]]
        assert any(__file__ in place and place.endswith(" look") for place in places)
        assert "builtins.ValueError" in [cause["type"] for cause in error["traceback"]]
        assert "canary" not in answer.text
        missing = await g.http.get("/admin/agents/errors/r2")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "error_not_found")


async def test_repeated_errors_are_counted():
    async with gateway_in_memory({"X": failing()}) as g:
        for number in range(3):
            await ask(g, f"r{number}")
        await ask(g, "other", model="nope")
        page = (await g.http.get("/admin/agents/errors")).json()
        assert page["total"] == 2
        assert [error["stage"] for error in page["errors"]] == ["route", "tool"]
        repeated = page["errors"][1]
        assert (repeated["count"], repeated["request_ids"]) == (3, ["r0", "r1", "r2"])
        assert repeated["first_seen"] <= repeated["last_seen"]


async def test_filters_and_pages():
    async with gateway_in_memory({"X": failing()}) as g:
        await ask(g, "r1")
        await ask(g, "r2", model="nope")

        async def stages(query: str) -> list[str]:
            return [e["stage"] for e in (await g.http.get(f"/admin/agents/errors?{query}")).json()["errors"]]

        assert await stages("agent=x") == ["tool"]
        assert await stages("stage=route") == ["route"]
        assert await stages("request_id=r2") == ["route"]
        assert await stages("since=2100-01-01T00:00:00Z") == []
        assert await stages("since=0") == ["route", "tool"]
        assert await stages("limit=1") == ["route"]
        assert await stages("limit=1&offset=1") == ["tool"]
        for query in ("since=yesterday", "limit=-1", "offset=x", "limit=99999999999"):
            assert (await g.http.get(f"/admin/agents/errors?{query}")).status_code == 400
        assert (await g.http.delete("/admin/agents/errors")).status_code == 204
        assert await stages("") == []


async def test_errors_require_an_admin():
    class User:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self):
            return Principal("user")

    async with gateway_in_memory({}, plugins={"user": User}) as g:
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/r1")):
            assert (await g.http.request(method, f"/admin/agents/errors{path}")).status_code == 403


async def test_errors_survive_a_restart(tmp_path):
    config = {"state": {"folder": str(tmp_path / "state")}}
    async with gateway_in_memory({"X": failing()}, config=config) as g:
        await ask(g, "r1")
    async with gateway_in_memory({"X": failing()}, config=config) as g:
        assert (await g.http.get("/admin/agents/errors/r1")).status_code == 200
        await ask(g, "r2")
        assert (await g.http.get("/admin/agents/errors")).json()["errors"][0]["count"] == 2
    assert (tmp_path / "state" / "errors.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"stage": 1}]', "null"])
def test_a_corrupt_file_is_ignored(tmp_path, content):
    file = tmp_path / "errors.json"
    file.write_text(content)
    assert load(file) == []


def test_a_write_error_is_logged(tmp_path, caplog):
    save(tmp_path / "no" / "such" / "folder" / "errors.json", [])
    assert "cannot save" in caplog.text


def test_the_least_recently_seen_error_is_removed_first():
    ring = ErrorRing(2)
    for message in ("a", "b", "a", "c"):
        ring.add(GatewayError(message))
    assert [error.message for error in ring.entries()] == ["c", "a"]
    assert ring.total == 4
