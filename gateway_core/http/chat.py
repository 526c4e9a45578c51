"""`POST /v1/chat/completions`: from a request to a run, and from its events to JSON or a stream.

It decides nothing about agents and knows nothing of the SDK. Until the first byte of an answer is out an error has
its own status; after that it is an event in the stream, which then ends without `[DONE]`.
"""

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway_core.errors import GatewayError
from gateway_core.gateway import RunningGateway
from gateway_core.http import problems, renderings
from gateway_core.http.access import authenticated, permitted_agent
from gateway_core.http.chat_format import (
    KEEP_ALIVE,
    ChunkWriter,
    completion,
    error_event,
    fingerprint,
    reasoning_fields,
)
from gateway_core.http.chat_id import session_id
from gateway_core.http.chat_request import ChatRequest, parse_chat_request
from gateway_core.http.clients import rendering_for
from gateway_core.http.disconnect import while_connected
from gateway_core.http.front import request_id_of
from gateway_core.http.images import prepare_images
from gateway_core.http.reading import read_json_object
from gateway_core.runs.engine import ActiveRun, RunRequest
from gateway_core.types import (
    BackgroundTask,
    Completed,
    Failed,
    RunContext,
    RunEvent,
    ServedAgent,
)

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class ChatCompletions:
    """The endpoint, as an ASGI application.

    Args:
        gateway: Whose agents to serve.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        principal = await authenticated(request, self._gateway)
        config = self._gateway.config
        body = await read_json_object(request, config.http)
        chat = parse_chat_request(body, max_messages=config.http.max_messages)
        served = await permitted_agent(chat.model, principal, self._gateway, request)
        await prepare_images(chat.conversation.items, config.http)
        task = self._background_task(request, chat, served)
        run = RunContext(
            request_id_of(scope),
            principal,
            served.id,
            request.headers.get("user-agent"),
            session_id=session_id(request.headers, chat.metadata),
            task=task.kind if task else None,
        )
        rendering = renderings.make(
            rendering_for(request.headers, principal, body.get("tools"), config.clients),
            max_result=config.clients.max_result,
            reasoning=config.clients.reasoning != "none",
        )
        await _Answer(self._gateway, chat, served, run, task, rendering, send).give(receive)

    def _background_task(self, request: Request, chat: ChatRequest, served: ServedAgent) -> BackgroundTask | None:
        if not self._gateway.config.agent(served.id).background_tasks:
            return None
        return self._gateway.hooks.background_task(served.entry, request.headers, chat.messages, chat.stream)


class _Answer:
    """One answer to one client."""

    def __init__(
        self,
        gateway: RunningGateway,
        chat: ChatRequest,
        served: ServedAgent,
        run: RunContext,
        task: BackgroundTask | None,
        rendering: renderings.Rendering,
        send: Send,
    ) -> None:
        self._gateway = gateway
        self._chat = chat
        self._served = served
        self._run = run
        self._task = task
        self._rendering = rendering
        self._send = send
        self._reasoning_to = reasoning_fields(gateway.config.clients.reasoning)
        self._active: ActiveRun | None = None

    async def give(self, receive: Receive) -> None:
        """Answer as long as the client is there; what becomes of the run after that is the agent's setting."""
        work = self._stream() if self._chat.stream else self._whole()
        left = await while_connected(receive, work, on_leave=self._hand_over)
        if left and self._active is not None and self._active.handed_over:
            self._gateway.left_runs.keep(self._active)

    def _hand_over(self) -> None:
        run = self._active
        if run is not None and self._task is None:
            run.handed_over = run.on_disconnect != "cancel" and not run.over

    async def _whole(self) -> None:
        """Send one JSON object when the run is over."""
        events: list[RunEvent] = []
        async with self._start() as run:
            while not _is_over(events):
                events += await run.take()
        if isinstance(last := events[-1], Failed):
            raise last.error
        shown = self._rendering.show(events)
        body = completion(self._served.id, fingerprint(self._served), shown, self._reasoning_to)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _stream(self) -> None:
        """Send events as the run tells them."""
        keep_alive = self._gateway.config.http.sse_keep_alive
        writer = ChunkWriter(
            self._served.id,
            fingerprint(self._served),
            include_usage=self._chat.include_usage,
            reasoning_to=self._reasoning_to,
        )
        async with self._start() as run:
            # Nothing is sent before something is known: a run that fails at once answers with its own status.
            events = await run.take(keep_alive)
            written = writer.events(self._rendering.show(events))
            while events and not _is_over(events) and not written:
                events = await run.take(keep_alive)
                written = writer.events(self._rendering.show(events))
            if _is_over(events) and isinstance(last := events[-1], Failed) and not written:
                raise last.error
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            written = writer.start() + written
            while not _is_over(events):
                await self._body(written or KEEP_ALIVE)
                events = await run.take(keep_alive)
                written = writer.events(self._rendering.show(events))
            await self._body(written + self._end(writer, events[-1]), more=False)

    def _start(self) -> ActiveRun:
        conversation = self._chat.conversation
        self._active = self._gateway.engine.start(
            RunRequest(
                self._served,
                self._run,
                conversation.items,
                conversation.text,
                live=self._chat.stream,
                system=conversation.system,
                settings=self._chat.settings,
                metadata=self._chat.metadata,
                task=self._task,
            )
        )
        return self._active

    def _end(self, writer: ChunkWriter, last: RunEvent) -> bytes:
        if isinstance(last, Completed):
            return writer.end(last)
        error = last.error if isinstance(last, Failed) else GatewayError("the run ended without an end")
        return error_event(problems.body(error, self._run.request_id))

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _is_over(events: list[RunEvent]) -> bool:
    return bool(events) and isinstance(events[-1], Completed | Failed)
