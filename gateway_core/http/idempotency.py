"""Runs a request with an `Idempotency-Key` once: a repetition waits for the first request and receives its response.

The responses are kept in memory for a limited time and size; a key whose response was discarded is still recognized.
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from attrs import define, field, frozen
from starlette.requests import Request
from starlette.types import Message, Receive, Send

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import FAILED_AFTER_TOOL, GatewayError, InvalidRequestError
from gateway_core.types import Principal

HEADER = "idempotency-key"
_REPLAYED = (b"idempotent-replayed", b"true")
_MAX_KEY_CHARACTERS = 255
_MAX_KEYS = 1000
"""Maximum number of keys of one principal; beyond it, the oldest one is forgotten."""
_PRINCIPAL_SHARE = 4
"""One principal may use this fraction of the size for responses."""
_RETRY_SECONDS = 10.0
"""A run in which a tool has started continues for this time without its client, which may retry."""


class Answer(Protocol):
    """A response that is being created; `http/streaming_endpoint.py` implements it."""

    send: Send

    @property
    def acted(self) -> bool:
        """Whether a tool has started, or the run continues without the client."""

    def serve(self, receive: Receive) -> Awaitable[None]:
        """Run the agent and send the response."""


@frozen
class Claim:
    """The key of a request, and a digest of its body."""

    principal_id: str
    path: str
    key: str
    digest: bytes

    @property
    def name(self) -> tuple[str, str, str]:
        """The scope in which the key is unique, and the key."""
        return self.principal_id, self.path, self.key


@define(eq=False)
class _Entry:
    """The response to the first request with a key."""

    claim: Claim
    messages: list[Message] = field(factory=list)
    size: int = 0
    error: GatewayError | None = None
    """The error to raise instead of a response, or after its messages."""
    until: float | None = None
    """Expiry, after the first request has ended."""
    waiting: int = 0
    """Number of repetitions that wait."""
    changed: asyncio.Event = field(factory=asyncio.Event)

    def notify(self) -> None:
        """Wake everything that waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether the response has ended."""
        last = self.messages[-1] if self.messages else {"type": ""}
        return bool(last["type"] == "http.response.body" and not last.get("more_body"))


class Idempotency:
    """The keys and responses of one gateway.

    Args:
        config: Returns the current settings.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, config: Callable[[], HttpConfig], clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        self._sizes: Counter[str] = Counter()
        """Size of the kept responses by principal."""

    def claim(self, request: Request, principal: Principal, body: Mapping[str, Any]) -> Claim | None:
        """Return the key of a request, or `None` if it has none.

        Raises:
            InvalidRequestError: The key is too long.
        """
        key = request.headers.get(HEADER)
        if not key or not self._config().idempotency:
            return None
        if len(key) > _MAX_KEY_CHARACTERS:
            raise InvalidRequestError(f"the header Idempotency-Key is longer than {_MAX_KEY_CHARACTERS} characters")
        digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()
        return Claim(principal.id, request.url.path.rstrip("/"), key, digest)

    def serve(self, claim: Claim | None, answer: Answer, receive: Receive) -> Awaitable[None]:
        """Send the response: create it, or repeat the one of the first request with this key.

        Raises:
            InvalidRequestError: The key belongs to a request with another body (status 422).
            GatewayError: The request failed, or its response is no longer available.
        """
        return answer.serve(receive) if claim is None else self._serve(claim, answer, receive)

    async def _serve(self, claim: Claim, answer: Answer, receive: Receive) -> None:
        entry = self._find(claim)
        if entry is None:
            await self._first(claim, answer, receive)
        elif entry.claim.digest != claim.digest:
            raise InvalidRequestError(
                "the Idempotency-Key was used for a request with another body",
                code="idempotency_key_reused",
                status=422,
                hint="use a new key for each request",
            )
        else:
            await self._repeat(entry, answer, receive)

    def _find(self, claim: Claim) -> _Entry | None:
        now = self._clock()
        for each in [e for e in self._entries.values() if e.until is not None and e.until <= now]:
            self._remove(each)
        return self._entries.get(claim.name)

    async def _first(self, claim: Claim, answer: Answer, receive: Receive) -> None:
        self._forget_keys(claim.principal_id)
        entry = self._entries[claim.name] = _Entry(claim)
        send = answer.send

        async def record(message: Message) -> None:
            self._record(entry, message)
            await send(message)

        async def receive_unless_repeated() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                await self._hold(entry, answer)
            return message

        answer.send = record
        try:
            await answer.serve(receive_unless_repeated)
        except GatewayError as error:
            entry.error = entry.error or error
            raise
        finally:
            self._end(entry, acted=answer.acted)

    async def _hold(self, entry: _Entry, answer: Answer) -> None:
        """Delay the report of a disconnect while a repetition waits, or may still arrive for a run that has acted."""
        if answer.acted and not entry.waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    while not entry.waiting:
                        await entry.changed.wait()
        while entry.waiting:
            await entry.changed.wait()

    def _record(self, entry: _Entry, message: Message) -> None:
        if entry.error is not None:
            return
        entry.messages.append(message)
        self._resize(entry, entry.size + len(message.get("body", b"")))
        self._discard_responses(entry.claim.principal_id)
        entry.notify()

    def _end(self, entry: _Entry, *, acted: bool) -> None:
        entry.until = self._clock() + self._config().idempotency
        if not entry.complete and not acted:
            # Nothing happened that must not happen twice: the next request starts a new run.
            self._remove(entry)
        if not entry.complete and entry.error is None:
            entry.error = _lost("was interrupted after a tool had started, or continues without a client")
        entry.notify()

    def _discard_responses(self, principal_id: str) -> None:
        """Discard the oldest responses beyond the limits, those in progress last."""
        limit = self._config().idempotency_size
        if self._sizes[principal_id] <= limit // _PRINCIPAL_SHARE and self._sizes.total() <= limit:
            return
        for each in sorted(self._entries.values(), key=lambda each: each.until is None):
            own = each.claim.principal_id == principal_id
            if self._sizes.total() > limit or (own and self._sizes[principal_id] > limit // _PRINCIPAL_SHARE):
                self._resize(each, 0)
                each.messages.clear()
                each.error = _lost("was too large to be kept")
                each.notify()

    def _forget_keys(self, principal_id: str) -> None:
        """Forget the oldest keys beyond the limit."""
        own = [each for each in self._entries.values() if each.claim.principal_id == principal_id]
        ended = [each for each in own if each.until is not None]
        for each in ended[: max(0, len(own) - _MAX_KEYS)]:
            self._remove(each)

    def _remove(self, entry: _Entry) -> None:
        if self._entries.get(entry.claim.name) is entry:
            del self._entries[entry.claim.name]
        self._resize(entry, 0)

    def _resize(self, entry: _Entry, size: int) -> None:
        self._sizes[entry.claim.principal_id] += size - entry.size
        entry.size = size

    async def _repeat(self, entry: _Entry, answer: Answer, receive: Receive) -> None:
        entry.waiting += 1
        entry.notify()
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            sent = 0
            while not leaving.done():
                changed = entry.changed
                for message in entry.messages[sent:]:
                    sent += 1
                    await answer.send(_marked(message))
                if entry.complete:
                    return
                if entry.error is not None:
                    raise entry.error
                await _first_of(changed.wait(), leaving)
        finally:
            leaving.cancel()
            entry.waiting -= 1
            entry.notify()


def _marked(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [*message["headers"], _REPLAYED]}


async def _first_of(waiting: Awaitable[object], leaving: "asyncio.Future[None]") -> None:
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _lost(reason: str) -> GatewayError:
    error = InvalidRequestError(
        f"the request with this Idempotency-Key {reason}; its response is not available",
        code="idempotent_response_lost",
        status=FAILED_AFTER_TOOL,
        hint="use a new key to run the request again",
    )
    error.should_retry = False
    return error
