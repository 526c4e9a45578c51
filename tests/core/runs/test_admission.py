"""Admission of runs: a run's admissions are entered before it starts and exited after it has ended."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from agents import Agent, function_tool
from openai import RateLimitError as OpenAIRateLimitError

from gateway_core import RateLimitError, hookimpl
from gateway_core.testing import call, gateway_in_memory, script

HELLO = [{"role": "user", "content": "hello"}]


def admitting(events, *, full=lambda: False):
    class Admitting:
        def __init__(self, *_):
            pass

        @hookimpl
        def admission(self, run, entry):
            @asynccontextmanager
            async def place():
                if full():
                    raise RateLimitError("full", retry_after=7)
                events.append(f"in {run.agent_id}")
                try:
                    yield
                finally:
                    events.append(f"out {entry.id}")

            return place()

        @hookimpl
        def on_run_end(self, run, outcome):
            events.append("end")

    return Admitting


async def test_a_run_holds_its_admissions_until_it_has_ended():
    events = []

    @function_tool
    def look() -> str:
        events.append("run")
        return "seen"

    agent = Agent(name="x", model=script(call("look"), "done"), tools=[look])
    async with gateway_in_memory({"X": agent}, plugins={"a": admitting(events)}) as g:
        await g.openai.chat.completions.create(model="X", messages=HELLO)
    assert events == ["in X", "run", "end", "out X"]


async def test_a_rejected_admission_is_the_clients_error_and_releases_entered_admissions():
    events = []
    plugins = {"first": admitting(events), "second": admitting(events, full=lambda: True)}
    async with gateway_in_memory({"X": Agent(name="x", model=script("no"))}, plugins=plugins) as g:
        with pytest.raises(OpenAIRateLimitError) as refused:
            await g.openai.chat.completions.create(model="X", messages=HELLO)
        assert g.gateway.engine.active == 0
    assert events == ["in X", "out X"]
    assert not g.ended
    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.body["type"] == "rate_limit_error"
    assert refused.value.body["code"] == "rate_limit_exceeded"


async def test_a_disconnect_releases_admissions():
    events, reached = [], asyncio.Event()

    @function_tool
    async def hang() -> str:
        reached.set()
        await asyncio.Event().wait()
        return "never"

    agent = Agent(name="x", model=script(["so far", call("hang")], "done"), tools=[hang])
    async with gateway_in_memory({"X": agent}, plugins={"a": admitting(events)}) as g:
        stream = await g.openai.chat.completions.create(model="X", messages=HELLO, stream=True)
        await reached.wait()
        await stream.close()
    assert events == ["in X", "end", "out X"]


class Marking:
    """Adds a header to every response, like a rate limit."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        scope["state"]["headers"].append((b"x-mark", b"1"))
        await self.app(scope, receive, send)


class Marks:
    def __init__(self, *_):
        pass

    @hookimpl
    def middleware(self):
        from starlette.middleware import Middleware

        return [Middleware(Marking)]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/none", "/nowhere"])
async def test_every_response_has_the_headers_of_its_request(path):
    async with gateway_in_memory({}, plugins={"marks": Marks}) as g:
        for _ in range(2):
            answer = await g.http.get(path)
            assert answer.headers.get_list("x-mark") == ["1"]
            assert len(answer.headers.get_list("x-request-id")) == 1
