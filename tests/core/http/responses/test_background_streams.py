"""Streams of background responses: a client that loses its connection resumes from the last event that it received."""

import asyncio

import openai
import pytest
from agents import Agent, function_tool

from gateway_core.http.responses import event_log
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.openai_types import check_response_stream

NO_SESSIONS = {"plugins": {"sessions": {"enabled": False}}}


def waiting_agent():
    started, release = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await release.wait()
        return "waited"

    return Agent(name="w", tools=[wait], model=script(["On it.", call("wait")], "Done.")), started, release


@pytest.mark.parametrize("config", [{}, NO_SESSIONS], ids=["sessions", "memory"])
async def test_a_stream_is_resumed_while_the_run_is_active_and_replayed_after_its_end(config):
    agent, started, release = waiting_agent()
    async with gateway_in_memory({"W": agent}, config=config) as g:
        stream = await g.openai.responses.create(model="W", input="go", background=True, stream=True)
        seen = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.function_call_arguments.done":
                break
        await stream.close()
        response_id = seen[0].response.id
        await started.wait()
        resumed = await g.openai.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        release.set()
        seen += [event async for event in resumed]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"
        assert seen[-1].response.output_text == "On it.Done."
        replayed = [event async for event in await g.openai.responses.retrieve(response_id, stream=True)]
        assert replayed == seen
        rest = await g.http.get(f"/v1/responses/{response_id}?stream=true&starting_after={len(seen) - 3}")
        assert [event.sequence_number for event in check_response_stream(rest.text)] == [len(seen) - 2, len(seen) - 1]
        assert (await g.http.get(f"/v1/responses/{response_id}?stream=true&starting_after=1000")).text == ""
        await g.openai.responses.delete(response_id)
        with pytest.raises(openai.NotFoundError):
            await g.openai.responses.retrieve(response_id, stream=True)


async def test_a_response_without_a_stream_has_events_too_and_several_clients_read_them():
    agent, started, release = waiting_agent()
    async with gateway_in_memory({"W": agent}) as g:
        made = await g.openai.responses.create(model="W", input="go", background=True)
        await started.wait()

        async def read():
            return [event.type async for event in await g.openai.responses.retrieve(made.id, stream=True)]

        reading = [asyncio.ensure_future(read()) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
        first, *others = await asyncio.gather(*reading)
        assert first[0] == "response.created"
        assert first[-1] == "response.completed"
        assert others == [first, first]


async def test_a_cancelled_response_ends_its_streams():
    agent, started, _ = waiting_agent()
    async with gateway_in_memory({"W": agent}) as g:
        stream = await g.openai.responses.create(model="W", input="go", background=True, stream=True)
        events = []
        async for event in stream:
            events.append(event)
            if event.type == "response.function_call_arguments.done":
                await started.wait()
                await g.openai.responses.cancel(events[0].response.id)
        assert events[-1].type == "response.failed"
        assert events[-1].response.status == "cancelled"


async def test_keep_alive_comments_are_sent_while_nothing_happens():
    agent, started, release = waiting_agent()
    async with gateway_in_memory({"W": agent}, config={"http": {"sse_keep_alive": 0.02}}) as g:
        made = await g.openai.responses.create(model="W", input="go", background=True)
        await started.wait()
        async with g.http.stream("GET", f"/v1/responses/{made.id}?stream=true") as answer:
            text = ""
            async for part in answer.aiter_text():
                text += part
                if text.count(": keep-alive") == 2:
                    release.set()
        assert text.rstrip().endswith("}")


async def test_events_that_are_not_kept_are_an_error(monkeypatch):
    agent = Agent(name="w", model=script("one", "two"))
    async with gateway_in_memory({"W": agent}) as g:
        plain = await g.openai.responses.create(model="W", input="go")
        monkeypatch.setattr(event_log, "MAX_BYTES", 100)
        stream = await g.openai.responses.create(model="W", input="go", background=True, stream=True)
        _ = [event async for event in stream]
        for path in (plain.id, f"{plain.id}?starting_after=1"):
            answer = await g.http.get(f"/v1/responses/{path}{'&' if '?' in path else '?'}stream=true")
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "events_not_available"
        answer = await g.http.get(f"/v1/responses/{plain.id}?stream=true&starting_after=x")
        assert answer.json()["error"]["param"] == "starting_after"
        assert (await g.http.get("/v1/responses/resp_1?stream=true")).status_code == 404
