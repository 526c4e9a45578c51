"""Stores responses in the record store, and resolves what later requests refer to: conversations and single items.

Each response has two records: the response, and its turn: the input as the client sent it, the items that the run added
to the conversation, and the id of the previous response. A conversation is the chain of its turns, so no item is stored
twice. The limits of a request apply to all items that it refers to.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import define, frozen

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import GatewayError, InvalidRequestError, RequestTooLargeError
from gateway_core.hooks.specs import RecordStore
from gateway_core.http.agent_request import Item
from gateway_core.http.content_parts import count_parts
from gateway_core.http.responses.event_log import EventLog
from gateway_core.http.responses.input_items import parse_input
from gateway_core.http.responses.item_ids import response_of
from gateway_core.http.responses.listed_items import listed_item

RESPONSE = "response"
"""The record kind of stored responses."""
TURN = "response_turn"
"""The record kind of their turns."""
EVENTS = "response_events"
"""The record kind of the events of background responses."""
_READ_FACTOR = 4
"""Responses that contain referenced items are read whole; they may be this much larger than the conversation."""


@frozen
class Conversation:
    """The conversation that a request continues."""

    items: list[Item]
    response_ids: tuple[str, ...] = ()
    """The responses that it consists of, newest first."""


@define
class _Budget:
    """The limits of one request, and their use so far."""

    limits: HttpConfig
    items: int = 0
    parts: int = 0
    size: int = 0
    read: int = 0

    def add(self, items: Sequence[Any]) -> None:
        self.items += len(items)
        self.parts += count_parts(items)
        if self.items > self.limits.max_messages:
            raise RequestTooLargeError(
                f"the conversation has more than {self.limits.max_messages} items (max_messages)", code=_TOO_LARGE
            )
        if self.parts > self.limits.max_parts:
            raise RequestTooLargeError(
                f"the conversation has more than {self.limits.max_parts} parts (max_parts)", code=_TOO_LARGE
            )

    def add_size(self, size: int) -> None:
        self.size += size
        if self.size > self.limits.max_conversation:
            raise _too_large(self.limits)

    def add_read(self, size: int) -> None:
        self.read += size
        if self.read > _READ_FACTOR * self.limits.max_conversation:
            raise _too_large(self.limits)


class StoredResponses:
    """The stored responses of one principal, for one request.

    Args:
        records: The record store.
        owner: The id of the principal.
        limits: The limits of a conversation.
    """

    def __init__(self, records: RecordStore, owner: str, limits: HttpConfig) -> None:
        self._records = records
        self._owner = owner
        self._limits = limits
        self._budget = _Budget(limits)
        self._outputs: dict[str, Sequence[Item]] = {}

    async def get(self, response_id: str) -> dict[str, Any] | None:
        """Returns a response as the client received it, or `None`."""
        record = await self._record(RESPONSE, response_id)
        return None if record is None else record["response"]

    async def input_items(self, response_id: str) -> list[Item] | None:
        """Returns the input items of a response, or `None`. References to deleted items are left out."""
        record = await self._record(TURN, response_id) or await self._record(RESPONSE, response_id)
        if record is None:
            return None
        items = [await self._referred(item) if is_reference(item) else item for item in record["input"]]
        return [listed_item(item) for item in items if item is not None]

    async def put(
        self,
        response: dict[str, Any],
        given: Sequence[Mapping[str, Any]],
        items: Sequence[Item],
        *,
        previous: str | None,
        seconds: float,
    ) -> None:
        """Stores a response.

        Args:
            response: The response as the client received it.
            given: The input items as the client sent them, with ids.
            items: The items that the run added to the conversation.
            previous: The id of the previous response.
            seconds: The lifetime.

        Raises:
            GatewayError: The response could not be stored.
        """
        turn = {"previous": previous, "input": given, "items": items}
        await self._records.put(TURN, response["id"], self._owner, orjson.dumps(turn), seconds=seconds)
        record = orjson.dumps({"response": response})
        await self._records.put(RESPONSE, response["id"], self._owner, record, seconds=seconds)

    async def put_events(self, response_id: str, events: EventLog, *, seconds: float) -> None:
        """Stores the stream events of a response.

        Raises:
            GatewayError: The events could not be stored.
        """
        await self._records.put(EVENTS, response_id, self._owner, events.compressed(), seconds=seconds)

    async def events(self, response_id: str) -> EventLog | None:
        """Returns the stream events of a response, or `None` if they were not stored."""
        kept = await self._records.get(EVENTS, response_id, self._owner)
        return None if kept is None else EventLog.of(kept)

    async def delete(self, response_id: str) -> bool:
        """Deletes a response with its turn and events. Returns whether it existed."""
        for kind in (EVENTS, TURN):
            await self._records.delete(kind, response_id, self._owner)
        return await self._records.delete(RESPONSE, response_id, self._owner)

    async def renew(self, conversation: Conversation, seconds: float) -> None:
        """Renews the lifetime of the responses that a conversation consists of, so that it expires as a whole."""
        used = [*conversation.response_ids, *self._outputs]
        with contextlib.suppress(GatewayError):  # reported by the store; the conversation is still valid
            for kind in (RESPONSE, TURN) if used else ():
                await self._records.touch(kind, used, self._owner, seconds=seconds)

    async def resolve(self, given: Any) -> Any:
        """Replaces item references in the `input` of a request by the items.

        Raises:
            InvalidRequestError: This principal has no stored item with that id.
            RequestTooLargeError: The items exceed the limits.
        """
        if not isinstance(given, list) or len(given) > self._limits.max_messages:
            return given  # a string, or rejected later
        resolved = []
        for position, item in enumerate(given):
            if is_reference(item):
                found = await self._referred(item)
                if found is None:
                    raise InvalidRequestError(
                        f"the item '{str(item.get('id'))[:100]}' was not found",
                        param=f"input[{position}].id",
                        code="item_not_found",
                        hint="its response was not stored, was deleted, has expired, or belongs to another key",
                    )
                self._budget.add_size(len(orjson.dumps(found)))
                resolved.append(found)
            else:
                resolved.append(item)
        return resolved

    async def conversation(self, response_id: str | None, given: Sequence[Mapping[str, Any]]) -> Conversation:
        """Returns the conversation up to a response; an empty one for `None`.

        Args:
            response_id: The id of the previous response.
            given: The input of the request, which counts toward the limits as well; it contains the references that
                `resolve` has counted.

        Raises:
            InvalidRequestError: A response of the conversation does not exist.
            RequestTooLargeError: The conversation exceeds the limits.
        """
        turns: list[list[Item]] = []
        ids: list[str] = []
        if response_id is not None or self._outputs:
            self._budget.add(given)
            self._budget.add_size(len(orjson.dumps(given)))
        current = response_id
        while current is not None and current not in ids:
            ids.append(current)
            turn = await self._turn(current)
            if turn is None:
                raise _previous_not_found(current, first=current == response_id)
            items, current = turn
            turns.append(items)
        return Conversation([item for items in reversed(turns) for item in items], tuple(ids))

    async def _turn(self, response_id: str) -> tuple[list[Item], str | None] | None:
        kept = await self._records.get(TURN, response_id, self._owner)
        if kept is None:
            record = await self._record(RESPONSE, response_id)
            if record is None or "conversation" not in record:
                return None
            # Stored by an earlier version: the response contains the whole conversation.
            items: list[Item] = record["conversation"]
            self._budget.add(items)
            self._budget.add_size(len(orjson.dumps(items)))
            return items, None
        self._budget.add_size(len(kept))
        turn = orjson.loads(kept)
        self._budget.add([*turn["input"], *turn["items"]])
        given = await self.resolve(turn["input"])
        parsed = parse_input(given, self._limits) if given else None
        return [*(parsed.items if parsed else ()), *turn["items"]], turn["previous"]

    async def _referred(self, item: Item) -> Item | None:
        """Returns the output item that a reference refers to, or `None`."""
        if not is_reference(item):
            return None
        referred = str(item.get("id"))
        response_id = response_of(referred)
        if response_id not in self._outputs:
            kept = await self._records.get(RESPONSE, response_id, self._owner)
            self._budget.add_read(len(kept or b""))
            self._outputs[response_id] = orjson.loads(kept)["response"]["output"] if kept is not None else ()
        return next((each for each in self._outputs[response_id] if each["id"] == referred), None)

    async def _record(self, kind: str, response_id: str) -> Any:
        kept = await self._records.get(kind, response_id, self._owner)
        return None if kept is None else orjson.loads(kept)


_TOO_LARGE = "conversation_too_large"


def _too_large(limits: HttpConfig) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"the conversation, with all items that the request refers to, is larger than {limits.max_conversation} bytes "
        "(max_conversation)",
        hint="start a new conversation, for example with a summary of this one",
        code=_TOO_LARGE,
    )


def is_reference(item: Any) -> bool:
    """Whether an input item refers to an item of a stored response."""
    return isinstance(item, dict) and item.get("type") == "item_reference"


def _previous_not_found(response_id: str, *, first: bool) -> InvalidRequestError:
    which = "the previous response" if first else "an earlier response of the conversation,"
    return InvalidRequestError(
        f"{which} '{response_id[:100]}' was not found",
        param="previous_response_id",
        code="previous_response_not_found",
        hint="it was not stored, was deleted, has expired, or belongs to another key",
    )
