"""Clients that see the exception of an agent's failed tool: those on the developer's machine, or as configured."""

import httpx2
import pytest
from agents import Agent, function_tool

from gateway_core import Principal, hookimpl
from gateway_core.testing import call, gateway_in_memory, script

TEXT = "no city called canary"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "model": "X"}


class Keys:
    """Authenticates every request."""

    guards = True

    def __init__(self, *_: object) -> None:
        pass

    @hookimpl
    async def authenticate(self, request: object) -> Principal:
        return Principal("someone", admin=True)


def agent(*, ends: bool) -> Agent:
    def look(city: str) -> str:
        """Look."""
        raise LookupError(TEXT)

    options = {"failure_error_function": None} if ends else {}
    tool = function_tool(look, **options)
    return Agent(name="x", tools=[tool], model=script(*[call("look", city="x"), *([] if ends else ["done"])] * 6))


async def answers(*, ends: bool, setting: str = "local", plugins=None, headers=None, client="127.0.0.1") -> list[str]:
    """Return the answers of both APIs, streamed and whole."""
    config = {"runs": {"tool_errors": setting}}
    async with gateway_in_memory({"X": agent(ends=ends)}, config=config, plugins=plugins) as g:
        transport = httpx2.ASGITransport(g.http._transport._app, client=(client, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            found = [
                await http.post(f"/v1/{path}", json={**CHAT, "stream": stream}, headers=headers)
                for path in ("chat/completions", "responses")
                for stream in (False, True)
            ]
    return [answer.text for answer in found]


@pytest.mark.parametrize("ends", [False, True])
async def test_a_client_on_this_machine_sees_the_exception_of_a_gateway_without_keys(ends):
    shown = [f"LookupError: {TEXT}" in text for text in await answers(ends=ends)]
    assert any(shown)
    if ends:
        assert all(shown)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    "elsewhere",
    [
        {"plugins": {"keys": Keys}},
        {"client": "192.0.2.7"},
        {"headers": {"x-forwarded-for": "192.0.2.7"}},
        {"headers": {"forwarded": "for=192.0.2.7"}},
        {"headers": {"host": "gateway.example"}},
        {"setting": "none"},
    ],
    ids=str,
)
async def test_other_clients_do_not(ends, elsewhere):
    for text in await answers(ends=ends, **elsewhere):
        assert "canary" not in text
        assert "LookupError" not in text


async def test_the_setting_shows_it_to_all_clients():
    assert all(TEXT in text for text in await answers(ends=True, setting="all", plugins={"keys": Keys}))


async def test_neither_the_model_nor_the_log_nor_the_recorded_errors_contain_it(caplog):
    x = agent(ends=False)
    async with gateway_in_memory({"X": x}, config={"runs": {"tool_errors": "local"}}) as g:
        await g.http.post("/v1/chat/completions", json=CHAT)
        recorded = (await g.http.get("/admin/agents/errors")).text
    assert "canary" not in caplog.text
    assert "canary" not in recorded
    assert "canary" not in str(x.model.calls[-1].input)
