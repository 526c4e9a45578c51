"""`POST /v1/chat/completions`: starts a run for a request and sends its result as JSON or as an event stream.

An error before the first byte of the response has its own HTTP status. A later error is an event in the stream, which
then ends without `[DONE]`.
"""

import logging
from collections.abc import Awaitable, Iterable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway_core.errors import GatewayError
from gateway_core.gateway import RunningGateway
from gateway_core.http import activity_rendering, error_responses
from gateway_core.http.activity_rendering import Shown
from gateway_core.http.agent_request import prepare_run, read_request
from gateway_core.http.chat.request import parse_chat_request
from gateway_core.http.chat.serializer import ChunkWriter, completion, error_event, fingerprint, reasoning_fields
from gateway_core.http.chat.stored import ToStore, put_completion
from gateway_core.http.client_detection import rendering_for
from gateway_core.http.idempotency import Claim, Idempotency
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.http.streaming_endpoint import KEEP_ALIVE, NOT_STORED, StreamingEndpoint, is_final
from gateway_core.runs.run_events import Completed, Failed, RunEvent
from gateway_core.runs.run_request import RunRequest

logger = logging.getLogger(__name__)


@described("Chat with an agent", takes=schemas.CHAT, answers=schemas.COMPLETION, content=schemas.STREAM)
class ChatCompletions:
    """The endpoint, as an ASGI application.

    Args:
        gateway: The gateway whose agents are served.
        idempotency: The keys of requests that run once.
    """

    def __init__(self, gateway: RunningGateway, idempotency: Idempotency) -> None:
        self._gateway = gateway
        self._idempotency = idempotency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        claim, answer = await self._prepare(Request(scope, receive), send)
        await self._idempotency.serve(claim, answer, receive)

    async def _prepare(self, request: Request, send: Send) -> "tuple[Claim | None, _Answer]":
        """Reads the request, of which the response holds only what the run needs."""
        principal, body = await read_request(request, self._gateway)
        claim = self._idempotency.claim(request, principal, body)
        config = self._gateway.config
        chat = parse_chat_request(body, config.http)
        to_run = await prepare_run(request, self._gateway, principal, chat)
        name = rendering_for(request.headers, principal, body.get("tools"), config.clients)
        is_json = to_run.served.structured or chat.answer_format is not None
        rendering = activity_rendering.make(name, config.clients, is_json=is_json)
        answer = _Answer(self._gateway, to_run, send, rendering, include_usage=chat.include_usage)
        if to_run.task is None:
            answer.to_store = chat.to_store
        return claim, answer


class _Answer(StreamingEndpoint):
    """One chat completion."""

    def __init__(
        self,
        gateway: RunningGateway,
        request: RunRequest,
        send: Send,
        rendering: activity_rendering.Rendering,
        *,
        include_usage: bool,
    ) -> None:
        super().__init__(gateway, request, send)
        self._served = request.served
        self._rendering = rendering
        self._include_usage = include_usage
        self.to_store: ToStore | None = None
        """The content to store with the completion; `None` to store nothing."""
        self._shown: list[Shown] = []
        self._reasoning_to = reasoning_fields(gateway.config.clients.reasoning)

    def serve(self, receive: Receive) -> Awaitable[None]:
        """Sends the response, whole or streamed."""
        return self._serve(self._stream() if self._request.live else self._whole(), receive)

    async def _whole(self) -> None:
        """Sends one JSON object when the run has ended."""
        events: list[RunEvent] = []
        async with self._start() as run:
            while not is_final(events):
                events += await run.take()
        if isinstance(last := events[-1], Failed):
            raise last.error
        answer = self._completion(self._rendering.show(events))
        await self._json(orjson.dumps(answer), () if await self._store(answer) else NOT_STORED)

    def _completion(self, shown: Iterable[Shown], id: str | None = None) -> dict[str, Any]:
        return completion(self._served.id, fingerprint(self._served), shown, self._reasoning_to, id=id)

    async def _store(self, answer: dict[str, Any]) -> bool:
        """Stores a completion, if requested. If that fails, the client still gets it."""
        if self.to_store is None:
            return True
        try:
            await put_completion(self._gateway, self._request.run.principal.id, answer, self.to_store)
        except Exception as error:
            if not isinstance(error, GatewayError):
                logger.exception("chat completion %s could not be stored", answer["id"])
            return False
        return True

    def _show(self, events: list[RunEvent]) -> Iterable[Shown]:
        """Renders events, and keeps them if the completion is stored."""
        shown = self._rendering.show(events)
        if self.to_store is not None:
            self._shown += shown
        return shown

    async def _stream(self) -> None:
        """Sends events as the run emits them."""
        keep_alive = self._gateway.config.http.sse_keep_alive
        writer = ChunkWriter(
            self._served.id,
            fingerprint(self._served),
            include_usage=self._include_usage,
            reasoning_to=self._reasoning_to,
        )
        async with self._start() as run:
            # Wait for the first output before the response starts, so that an immediate failure gets its own status.
            # The start of a tool starts the response, too: a failure is then an event, which clients do not retry.
            events = await run.take(keep_alive)
            written = writer.events(self._show(events))
            while events and not is_final(events) and not written and not run.acted:
                events = await run.take(keep_alive)
                written = writer.events(self._show(events))
            if is_final(events) and isinstance(last := events[-1], Failed) and not (written or run.acted):
                raise last.error
            await self._start_stream()
            written = writer.start() + written
            while not is_final(events):
                await self._send_chunk(written or KEEP_ALIVE)
                events = await run.take(keep_alive)
                written = writer.events(self._show(events))
            if self.to_store is not None and isinstance(events[-1], Completed):
                # Before the client receives the last event, so that it can fetch the completion then.
                await self._store(self._completion(self._shown, writer.id))
            await self._send_chunk(written + self._end(writer, events[-1]), more=False)

    def _end(self, writer: ChunkWriter, last: RunEvent) -> bytes:
        if isinstance(last, Completed):
            return writer.end(last)
        error = last.error if isinstance(last, Failed) else GatewayError("the run ended without a result")
        return error_event(error_responses.body(error, self._request.run.request_id))
