"""Base class of the endpoints that run an agent: starts the run and handles a client disconnect.

Subclasses serialize the response.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from starlette.types import Receive, Send

from gateway_core.errors import GatewayError
from gateway_core.gateway import RunningGateway
from gateway_core.http import client_tools
from gateway_core.runs.active_run import ActiveRun
from gateway_core.runs.run_events import Completed, Failed, RunEvent
from gateway_core.runs.run_request import RunRequest

logger = logging.getLogger(__name__)

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
IGNORED_ATTACHMENTS = "x-agent-gateway-ignored-attachments"
NOT_STORED = ((b"x-agent-gateway-stored", b"false"),)
"""Header of an answer that should be stored, but could not be."""
KEEP_ALIVE = b": keep-alive\n\n"


class StreamingEndpoint:
    """One response to one client.

    Args:
        gateway: The gateway that runs the agent.
        request: The run to start.
        send: The ASGI `send` of the request.
    """

    def __init__(self, gateway: RunningGateway, request: RunRequest, send: Send) -> None:
        self._gateway = gateway
        self._request = request
        self.send = send
        self._active: ActiveRun | None = None
        self._left = False

    @property
    def acted(self) -> bool:
        """Whether a tool has started, or the run continues without the client."""
        return self._active is not None and (self._active.acted or self._active.handed_over)

    def serve(self, receive: Receive) -> Awaitable[None]:
        """Runs the agent and sends the response."""
        raise NotImplementedError

    def _start(self) -> ActiveRun:
        """Creates the run; the caller must enter it."""
        self._active = self._gateway.engine.start(self._request)
        return self._active

    async def _serve(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Runs `work` until it finishes or the client disconnects, which cancels it.

        After a disconnect, the agent's `on_disconnect` setting decides whether the run continues.
        """
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        # A disconnect is reported only to a pending `receive()`, so one is pending until `work` finishes.
        leaving = asyncio.ensure_future(self._cancel_on_disconnect(receive, task))
        try:
            await work
        except Exception as error:
            # After a disconnect, no client receives the error.
            if not self._left:
                if isinstance(error, GatewayError) or self._active is None or not self._active.acted:
                    raise
                raise self._failed_after_tool() from error
        except asyncio.CancelledError:
            if not self._left or task.cancelling() > cancelled_before + 1:
                raise  # cancelled from outside, such as at shutdown
        finally:
            leaving.cancel()
            if self._left:
                task.uncancel()
        if self._left and self._active is not None and self._active.handed_over:
            self._gateway.detached_runs.keep(self._active)

    def _failed_after_tool(self) -> GatewayError:
        logger.exception("request %s failed after a tool had started", self._request.run.request_id)
        problem = GatewayError("internal error")
        problem.after_tool()
        return problem

    async def _cancel_on_disconnect(self, receive: Receive, task: "asyncio.Task[Any]") -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._on_disconnect()
        task.cancel()

    def _on_disconnect(self) -> None:
        run = self._active
        if run is None:
            return
        run.client_left = True
        if self._request.task is None:
            run.handed_over = run.on_disconnect != "cancel" and not run.over

    async def _json(self, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
        await self._start_response(headers)
        await self.send({"type": "http.response.body", "body": body})

    async def _start_stream(self) -> None:
        await self._start_response(STREAM_HEADERS)

    async def _start_response(self, headers: list[tuple[bytes, bytes]]) -> None:
        run = self._active
        added = client_tools.header(run.ignored_tools if run is not None else self._request.ignored_tools)
        if run is not None and (kinds := sorted(set(run.ignored_attachments))):
            added.append((IGNORED_ATTACHMENTS.encode(), ", ".join(kinds).encode()))
        await self.send({"type": "http.response.start", "status": 200, "headers": headers + added})

    async def _send_chunk(self, body: bytes, *, more: bool = True) -> None:
        if body == KEEP_ALIVE and self._active is not None:
            self._active.keep_alives += 1
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


def is_final(events: list[RunEvent]) -> bool:
    """Whether the last event ends the run."""
    return bool(events) and isinstance(events[-1], Completed | Failed)
