"""`/v1/responses`: OpenAI's Responses API, on the same runs and events as chat completions.

Responses are stored in the record store, for the principal that created them. An error before the first byte of the
response has its own HTTP status. A later error is the event `response.failed`, which ends the stream.
"""

import asyncio
import contextlib
import logging

import orjson
from attrs import evolve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import GatewayError, InvalidRequestError, NotFoundError, RunError
from gateway_core.gateway import RunningGateway
from gateway_core.http.agent_request import prepare_run, read_request
from gateway_core.http.auth import authenticated
from gateway_core.http.client_detection import has_tool_items
from gateway_core.http.idempotency import Claim, Idempotency
from gateway_core.http.json_io import json_response
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.http.pages import page_of, page_query
from gateway_core.http.responses.event_log import EventLog
from gateway_core.http.responses.input_items import ApprovalAnswer
from gateway_core.http.responses.item_ids import new_id
from gateway_core.http.responses.request import ResponsesRequest, parse_responses_request
from gateway_core.http.responses.serializer import CANCELLED, Json, ResponseWriter
from gateway_core.http.responses.stored import StoredResponses, is_reference
from gateway_core.http.streaming_endpoint import KEEP_ALIVE, NOT_STORED, STREAM_HEADERS, StreamingEndpoint, is_final
from gateway_core.runs.active_run import ActiveRun
from gateway_core.runs.approvals import Verdict
from gateway_core.runs.run_events import Failed, RunEvent
from gateway_core.runs.run_request import RunRequest
from gateway_core.types import Principal

logger = logging.getLogger(__name__)


@described("Create a response", takes=schemas.RESPONSE_REQUEST, answers=schemas.RESPONSE, content=schemas.STREAM)
class Responses:
    """The endpoints.

    Args:
        gateway: The gateway whose agents are served.
        idempotency: The keys of requests that run once.
    """

    def __init__(self, gateway: RunningGateway, idempotency: Idempotency) -> None:
        self._gateway = gateway
        self._idempotency = idempotency
        self._running: dict[tuple[str, str], _Answer] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /v1/responses`."""
        claim, answer = await self._prepare(Request(scope, receive), send)
        await self._idempotency.serve(claim, answer, receive)

    async def _prepare(self, request: Request, send: Send) -> "tuple[Claim | None, _Answer]":
        """Reads the request, of which the response holds only what the run and the storage need."""
        principal, body = await read_request(request, self._gateway)
        claim = self._idempotency.claim(request, principal, body)
        config = self._gateway.config
        stored = self._stored_by(principal)
        given = body.get("input")
        body["input"] = await stored.resolve(given)
        asked = parse_responses_request(body, config.http)
        to_run = await prepare_run(request, self._gateway, principal, asked)
        if isinstance(given, list):  # references stay references, so that no item is stored or counted twice
            pairs = zip(given, asked.given, strict=True)
            asked = evolve(asked, given=[as_sent if is_reference(as_sent) else item for as_sent, item in pairs])
        earlier = await stored.conversation(asked.previous_response_id, asked.given)
        await stored.renew(earlier, config.http.keep_responses)
        to_run = evolve(to_run, items=[*earlier.items, *asked.items], verdict=_verdict(asked.approvals))
        tools = has_tool_items(request.headers, principal, body.get("tools"), config.clients)
        return claim, _Answer(self._gateway, to_run, send, asked, stored, tools, self._running, request.scope)

    @described("Get a stored response", answers=schemas.RESPONSE, query=schemas.RESUME, content=schemas.STREAM)
    async def get(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`; with `stream=true`, the events of a background response."""
        principal = await authenticated(request, self._gateway)
        answer = self._running.get((principal.id, request.path_params["id"]))
        if request.query_params.get("stream", "").lower() == "true":
            start = _start_of(request)
            return _stream(await self._events(principal, request, answer), start, self._gateway.config.http)
        return json_response(answer.snapshot() if answer is not None else await self._stored(principal, request))

    @described(
        "List the input items of a stored response, newest first by default",
        answers=schemas.LIST,
        query=schemas.PAGE,
    )
    async def input_items(self, request: Request) -> Response:
        """`GET /v1/responses/{id}/input_items`, newest first unless `order=asc`."""
        principal = await authenticated(request, self._gateway)
        response_id = request.path_params["id"]
        items = await self._stored_by(principal).input_items(response_id)
        if items is None:
            raise _not_found(response_id)
        return json_response(page_of(items, page_query(request, order="desc")))

    @described("Delete a stored response", answers=schemas.DELETED)
    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`."""
        principal = await authenticated(request, self._gateway)
        response_id = request.path_params["id"]
        if (principal.id, response_id) in self._running:
            raise InvalidRequestError("the response is in progress; cancel it first", param="id")
        if not await self._stored_by(principal).delete(response_id):
            raise _not_found(response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    @described("Cancel a response in progress", answers=schemas.RESPONSE)
    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`; a response that has ended cannot be cancelled."""
        principal = await authenticated(request, self._gateway)
        answer = self._running.get((principal.id, request.path_params["id"]))
        if answer is not None:
            return json_response(answer.cancel())
        stored = await self._stored(principal, request)
        raise InvalidRequestError(f"a response with the status '{stored['status']}' cannot be cancelled", param="id")

    async def _events(self, principal: Principal, request: Request, answer: "_Answer | None") -> EventLog:
        """Returns the events of a response that runs, or ran, in the background."""
        if answer is not None:
            log = answer.log
        else:
            response = await self._stored(principal, request)
            log = await self._stored_by(principal).events(response["id"])
        if log is None or log.discarded:
            raise InvalidRequestError(
                "the events of this response are not available",
                hint="those of a response with `background` are, until they are larger than 32 MiB",
                param="stream",
                code="events_not_available",
            )
        return log

    async def _stored(self, principal: Principal, request: Request) -> Json:
        response_id = request.path_params["id"]
        response = await self._stored_by(principal).get(response_id)
        if response is None:
            raise _not_found(response_id)
        return response

    def _stored_by(self, principal: Principal) -> StoredResponses:
        return StoredResponses(self._gateway.records, principal.id, self._gateway.config.http)


class _Answer(StreamingEndpoint):
    """One response."""

    def __init__(
        self,
        gateway: RunningGateway,
        request: RunRequest,
        send: Send,
        asked: ResponsesRequest,
        stored: StoredResponses,
        tools: bool,
        running: "dict[tuple[str, str], _Answer]",
        scope: Scope,
    ) -> None:
        super().__init__(gateway, request, send)
        self._asked = asked
        self._stored = stored
        self._running = running
        self._scope = scope
        self.log = EventLog() if asked.background else None
        """The events, if the response runs in the background."""
        self._store = asked.store is not False and request.task is None
        self._id = new_id("resp")
        self._writer = ResponseWriter(
            self._id,
            request.served.id,
            asked.echo,
            request_id=request.run.request_id,
            store=self._store,
            reasoning=gateway.config.clients.reasoning != "none",
            tools=tools,
            live=request.live,
        )

    async def serve(self, receive: Receive) -> None:
        """Sends the response whole or streamed, or starts it in the background and returns at once."""
        key = self._request.run.principal.id, self._id
        if self.log is not None:
            await self._start_in_background(key, self.log)
            if self._request.live:
                await _stream(self.log, 0, self._gateway.config.http)(self._scope, receive, self.send)
            else:
                await self._json(orjson.dumps(self._writer.snapshot()))
            return
        try:
            await self._serve(self._stream(key) if self._request.live else self._whole(key), receive)
        finally:
            self._running.pop(key, None)

    def snapshot(self) -> Json:
        """Returns the response in its current state."""
        return self._writer.snapshot()

    def cancel(self) -> Json:
        """Cancels the run and returns the response in its current state. A streaming client receives the last event."""
        if self._active is not None:
            self._active.stop(RunError("the run was cancelled", code=CANCELLED))
        return {**self._writer.snapshot(), "status": "cancelled"}

    async def _start_in_background(self, key: tuple[str, str], log: EventLog) -> None:
        """Starts the run and returns.

        Raises:
            GatewayError: The run cannot start.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._gateway.detached_runs.go_on(self._run_in_background(key, log, started))
        try:
            await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()  # the client disconnected before it received the id
            raise
        if not started.done():
            await task  # raises the error that prevented the start

    async def _run_in_background(self, key: tuple[str, str], log: EventLog, started: "asyncio.Future[None]") -> None:
        """Completes the response without a client."""
        try:
            async with self._start() as run:
                self._running[key] = self
                log.add(self._writer.start())
                started.set_result(None)
                await self._read(run)
            kept = await self._keep()
            log.add(self._writer.end())
            if kept and not log.discarded:
                with contextlib.suppress(GatewayError):  # reported by the store; the response itself is stored
                    seconds = self._gateway.config.http.keep_responses
                    await self._stored.put_events(self._id, log, seconds=seconds)
            if not kept:
                # The client fetches the response later: keep it in memory.
                delay = self._gateway.config.runs.keep_results
                asyncio.get_running_loop().call_later(delay, self._running.pop, key, None)
                return
        except Exception:
            if not started.done():
                raise
            logger.exception("background response %s could not be completed", self._id)
        finally:
            log.end()
        self._running.pop(key, None)

    async def _whole(self, key: tuple[str, str]) -> None:
        async with self._start() as run:
            self._running[key] = self
            last = await self._read(run)
        if isinstance(last, Failed):
            raise last.error
        self._writer.end()
        stored = await self._keep()
        await self._json(orjson.dumps(self._writer.response), () if stored else NOT_STORED)

    async def _read(self, run: ActiveRun) -> RunEvent:
        """Serializes all events of a run. Returns the last event."""
        events: list[RunEvent] = []
        while not is_final(events):
            events = await run.take()
            written = self._writer.events(events)
            if self.log is not None:
                self.log.add(written)
        return events[-1]

    async def _stream(self, key: tuple[str, str]) -> None:
        keep_alive = self._gateway.config.http.sse_keep_alive
        async with self._start() as run:
            self._running[key] = self
            # A run that fails immediately, before a tool has started, gets its own HTTP status.
            events = await run.take(keep_alive)
            if len(events) == 1 and isinstance(events[0], Failed) and not run.acted:
                raise events[0].error
            await self._start_stream()
            start = self._writer.start()
            while not is_final(events):
                await self._send_chunk(start + (self._writer.events(events) or (b"" if start else KEEP_ALIVE)))
                start = b""
                events = await run.take(keep_alive)
            last = start + self._writer.events(events)
            # Store the response before the client receives the last event, so that a follow-up request can refer to it.
            await self._keep()
            await self._send_chunk(last + self._writer.end(), more=False)

    async def _keep(self) -> bool:
        """Stores the response, if requested. If that fails, the client still gets it, marked as not stored."""
        if not self._store:
            return True
        try:
            await self._stored.put(
                self._writer.response,
                self._asked.given,
                self._writer.conversation_items,
                previous=self._asked.previous_response_id,
                seconds=self._gateway.config.http.keep_responses,
            )
        except Exception as error:
            if not isinstance(error, GatewayError):
                logger.exception("response %s could not be stored", self._id)
            self._writer.response["store"] = False
            return False
        return True


def _verdict(answers: tuple[ApprovalAnswer, ...]) -> tuple[str, Verdict] | None:
    """Returns the verdict on an approval request; a single rejected call rejects all of them."""
    if not answers:
        return None
    questions = {answer.request_id.rpartition(".")[0] or answer.request_id for answer in answers}
    if len(questions) > 1:
        raise InvalidRequestError("the approval responses refer to more than one approval request", param="input")
    reason = next((answer.reason for answer in answers if not answer.approved), None)
    return questions.pop(), Verdict(all(answer.approved for answer in answers), reason)


def _start_of(request: Request) -> int:
    """Returns the number of the first event that a request for a stream asks for."""
    after = request.query_params.get("starting_after", "")
    if after and not (after.isascii() and after.isdigit()):
        raise InvalidRequestError("'starting_after' must be a sequence number", param="starting_after")
    return int(after[:18]) + 1 if after else 0


def _stream(log: EventLog, start: int, config: HttpConfig) -> Response:
    headers = {name.decode(): value.decode() for name, value in STREAM_HEADERS}
    return StreamingResponse(log.read(start, config.sse_keep_alive), headers=headers)


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"the response '{response_id[:100]}' was not found", code="response_not_found", param="id")
