"""`POST /v1/chat/completions`: from a request to a run, and from its events to JSON or a stream.

It decides nothing about agents and knows nothing of the SDK. Until the first byte of an answer is out an error has
its own status; after that it is an event in the stream, which then ends without `[DONE]`.
"""

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway_core.errors import GatewayError
from gateway_core.gateway import RunningGateway
from gateway_core.http import problems
from gateway_core.http.access import authenticated, permitted_agent
from gateway_core.http.chat_format import KEEP_ALIVE, ChunkWriter, completion, error_event
from gateway_core.http.chat_request import ChatRequest, parse_chat_request
from gateway_core.http.disconnect import while_connected
from gateway_core.http.front import request_id_of
from gateway_core.http.reading import read_json_object
from gateway_core.runs.engine import ActiveRun, RunRequest
from gateway_core.types import Completed, Failed, ReasoningDelta, RunContext, RunEvent, ServedAgent, TextDelta

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
        http_request = Request(scope, receive)
        principal = await authenticated(http_request, self._gateway)
        limits = self._gateway.config.http
        body = await read_json_object(http_request, limits)
        chat = parse_chat_request(body, max_messages=limits.max_messages)
        served = await permitted_agent(chat.model, principal, self._gateway, http_request)
        run = RunContext(request_id_of(scope), principal, served.id, http_request.headers.get("user-agent"))
        answer = _Answer(self._gateway, chat, served, run, send)
        await while_connected(receive, answer.stream() if chat.stream else answer.whole())


class _Answer:
    """One answer to one client."""

    def __init__(
        self, gateway: RunningGateway, chat: ChatRequest, served: ServedAgent, run: RunContext, send: Send
    ) -> None:
        self._gateway = gateway
        self._chat = chat
        self._served = served
        self._run = run
        self._send = send

    async def whole(self) -> None:
        """Send one JSON object when the run is over."""
        events: list[RunEvent] = []
        async with self._start() as run:
            while not _is_over(events):
                events += await run.take()
        if isinstance(last := events[-1], Failed):
            raise last.error
        body = completion(self._served.id, _fingerprint(self._served), events)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self) -> None:
        """Send events as the run tells them."""
        keep_alive = self._gateway.config.http.sse_keep_alive
        writer = ChunkWriter(self._served.id, _fingerprint(self._served), include_usage=self._chat.include_usage)
        async with self._start() as run:
            # Nothing is sent before something is known: a run that fails at once answers with its own status.
            events = await run.take(keep_alive)
            while events and not _is_over(events) and not _has_text(events):
                events += await run.take(keep_alive) or [TextDelta("")]
            if events and isinstance(events[-1], Failed) and not _has_text(events):
                raise events[-1].error
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            out = writer.start()
            while not _is_over(events):
                await self._body(out + (writer.events(events) or KEEP_ALIVE))
                out = b""
                events = await run.take(keep_alive)
            await self._body(out + writer.events(events) + self._end(writer, events[-1]), more=False)

    def _start(self) -> ActiveRun:
        conversation = self._chat.conversation
        return self._gateway.engine.start(
            RunRequest(
                self._served,
                self._run,
                conversation.items,
                conversation.text,
                live=self._chat.stream,
                system=conversation.system,
                settings=self._chat.settings,
                metadata=self._chat.metadata,
            )
        )

    def _end(self, writer: ChunkWriter, last: RunEvent) -> bytes:
        if isinstance(last, Completed):
            return writer.end(last)
        error = last.error if isinstance(last, Failed) else GatewayError("the run ended without an end")
        return error_event(problems.body(error, self._run.request_id))

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _is_over(events: list[RunEvent]) -> bool:
    return bool(events) and isinstance(events[-1], Completed | Failed)


def _has_text(events: list[RunEvent]) -> bool:
    return any(isinstance(event, TextDelta | ReasoningDelta) for event in events)


def _fingerprint(served: ServedAgent) -> str:
    return f"fp_{served.entry.digest[:12]}"
