"""Runs after a client disconnect: cancelled, detached or kept for a grace period, with results to fetch later."""

import asyncio

import pytest
from agents import Agent, function_tool

from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal


class Slow:
    """An agent whose tool blocks until `go` is set."""

    def __init__(self):
        self.started, self.go = asyncio.Event(), asyncio.Event()
        self.cancelled = False

        @function_tool
        async def work() -> str:
            """Work."""
            self.started.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return "worked"

        self.agent = Agent(name="slow", tools=[work], model=script(call("work"), "All done."))


BODY = {"model": "A", "messages": [{"role": "user", "content": "go"}]}


async def leave(g, slow, *, stream: bool, model: str = "A", **headers) -> None:
    """Sends a request, and disconnects while the tool is running."""
    body = {**BODY, "model": model, "stream": stream}
    request = asyncio.create_task(
        g.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "r1", **headers})
    )
    await slow.started.wait()
    request.cancel()
    await asyncio.wait([request])


async def until(g, path: str, status: str) -> dict:
    async with asyncio.timeout(5):
        while True:
            run = (await g.http.get(path)).json()
            if run["status"] == status:
                return run
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
async def test_by_default_a_disconnect_cancels_the_run(stream):
    slow = Slow()
    async with gateway_in_memory({"A": slow.agent}) as g:
        await leave(g, slow, stream=stream)
        assert slow.cancelled
        assert (await g.http.get("/v1/runs/r1")).json()["error"]["code"] == "run_not_found"
        [(_, outcome)] = g.ended
        assert outcome.cancelled


@pytest.mark.parametrize("stream", [False, True])
async def test_a_detached_run_completes_and_can_be_fetched(stream):
    slow = Slow()
    async with gateway_in_memory({"A": slow.agent}, config={"agents": {"a": {"on_disconnect": "detach"}}}) as g:
        await leave(g, slow, stream=stream)
        running = (await g.http.get("/v1/runs/r1")).json()
        assert (running["status"], running["response"], running["model"]) == ("in_progress", None, "A")
        slow.go.set()
        run = await until(g, "/v1/runs/r1", "completed")
        assert run["response"]["choices"][0]["message"]["content"] == "All done."
        assert run["response"]["object"] == "chat.completion"
        async with asyncio.timeout(5):
            while not g.ended:
                await asyncio.sleep(0.01)
        [(_, outcome)] = g.ended
        assert not outcome.cancelled
        assert not slow.cancelled


async def test_a_run_is_cancelled_after_the_grace_period():
    slow = Slow()
    async with gateway_in_memory({"A": slow.agent}, config={"runs": {"on_disconnect": "grace", "grace": "50ms"}}) as g:
        await leave(g, slow, stream=True)
        await until(g, "/v1/runs/r1", "cancelled")
        async with asyncio.timeout(5):
            while not slow.cancelled:
                await asyncio.sleep(0.01)


async def test_a_detached_run_can_fail_or_be_cancelled():
    slow, broken = Slow(), Slow()
    broken.agent.model = script(call("work"))  # the script has no second turn, so the run fails
    config = {"runs": {"on_disconnect": "detach"}}
    async with gateway_in_memory({"A": slow.agent, "B": broken.agent}, config=config) as g:
        await leave(g, slow, stream=True)
        cancelled = (await g.http.post("/v1/runs/r1/cancel")).json()
        assert cancelled["status"] == "cancelled"
        assert slow.cancelled
        assert (await g.http.get("/v1/runs/r1")).json()["status"] == "cancelled"
        request = asyncio.create_task(
            g.http.post("/v1/chat/completions", json={**BODY, "model": "B"}, headers={"x-request-id": "r2"})
        )
        await broken.started.wait()
        request.cancel()
        await asyncio.wait([request])
        broken.go.set()
        run = await until(g, "/v1/runs/r2", "failed")
        assert run["error"]["type"] == "server_error"


async def test_a_result_belongs_to_its_principal_and_expires():
    class People:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers.get("x-who", "nobody"))

    slow = Slow()
    config = {"runs": {"on_disconnect": "detach", "keep_results": "50ms"}}
    async with gateway_in_memory({"A": slow.agent}, config=config, plugins={"people": People}) as g:
        await leave(g, slow, stream=True, **{"x-who": "ada"})
        ada = {"x-who": "ada"}
        assert (await g.http.get("/v1/runs/r1")).status_code == 404
        assert (await g.http.get("/v1/runs/r1", headers=ada)).status_code == 200
        assert (await g.http.post("/v1/runs/r1/cancel")).status_code == 404
        slow.go.set()
        async with asyncio.timeout(5):
            while (await g.http.get("/v1/runs/r1", headers=ada)).status_code == 200:
                await asyncio.sleep(0.01)


async def test_a_newer_run_with_the_same_id_replaces_the_result():
    first, second = Slow(), Slow()
    config = {"runs": {"on_disconnect": "detach", "keep_results": "2s"}}
    async with gateway_in_memory({"A": first.agent, "B": second.agent}, config=config) as g:
        await leave(g, first, stream=True)
        first.go.set()
        await until(g, "/v1/runs/r1", "completed")
        await leave(g, second, stream=True, model="B")
        # By then, the timer of the first result has fired.
        await asyncio.sleep(2.1)
        assert (await g.http.get("/v1/runs/r1")).json()["model"] == "B"


async def test_no_result_is_kept_if_the_client_stays_connected():
    slow = Slow()
    slow.go.set()
    async with gateway_in_memory({"A": slow.agent}, config={"runs": {"on_disconnect": "detach"}}) as g:
        answer = await g.http.post("/v1/chat/completions", json=BODY, headers={"x-request-id": "r1"})
        assert answer.status_code == 200
        assert (await g.http.get("/v1/runs/r1")).status_code == 404


async def test_shutdown_cancels_detached_runs():
    slow = Slow()
    async with gateway_in_memory({"A": slow.agent}, config={"runs": {"on_disconnect": "detach"}}) as g:
        await leave(g, slow, stream=True)
    assert slow.cancelled
