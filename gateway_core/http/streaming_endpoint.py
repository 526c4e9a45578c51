"""What every surface that runs an agent does alike: start the run, and let go of it, or not, when the client leaves.

It renders nothing; a surface's own class does.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.types import Receive, Send

from gateway_core.gateway import RunningGateway
from gateway_core.http.disconnect import while_connected
from gateway_core.runs.active_run import ActiveRun
from gateway_core.runs.run_request import RunRequest
from gateway_core.types import BackgroundTask, Completed, Failed, RunEvent, ServedAgent

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
KEEP_ALIVE = b": keep-alive\n\n"


class StreamingEndpoint:
    """One answer to one client.

    Args:
        gateway: Whose agents run.
        request: What to run.
        send: The answer's.
    """

    def __init__(self, gateway: RunningGateway, request: RunRequest, send: Send) -> None:
        self._gateway = gateway
        self._request = request
        self._send = send
        self._active: ActiveRun | None = None

    def _start(self) -> ActiveRun:
        """The run, to be entered."""
        self._active = self._gateway.engine.start(self._request)
        return self._active

    async def _give(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Do the work as long as the client is there; what becomes of its run after that is the agent's setting."""
        left = await while_connected(receive, work, on_leave=self._hand_over)
        if left and self._active is not None and self._active.handed_over:
            self._gateway.detached_runs.keep(self._active)

    def _hand_over(self) -> None:
        run = self._active
        if run is None:
            return
        run.client_left = True
        if self._request.task is None:
            run.handed_over = run.on_disconnect != "cancel" and not run.over

    async def _json(self, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _stream_starts(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})

    async def _piece(self, body: bytes, *, more: bool = True) -> None:
        if body == KEEP_ALIVE and self._active is not None:
            self._active.keep_alives += 1
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def background_task(
    gateway: RunningGateway,
    served: ServedAgent,
    headers: Mapping[str, str],
    messages: Sequence[Mapping[str, Any]],
    *,
    stream: bool,
) -> BackgroundTask | None:
    """What a UI wants by itself, such as a title, if the request is for that and the agent leaves it to others."""
    if not gateway.config.agent(served.id).background_tasks:
        return None
    return gateway.hooks.background_task(served.entry, headers, messages, stream)


def is_over(events: list[RunEvent]) -> bool:
    """Whether the last of some events is the last of all."""
    return bool(events) and isinstance(events[-1], Completed | Failed)
