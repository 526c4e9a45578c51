"""References of a Responses request to items that earlier responses gave, as some clients send them for a conversation.

An item's id says which response it belongs to, so that no index is kept of them.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from gateway_core.errors import InvalidRequestError
from gateway_core.hooks.specs import RecordStore

RESPONSE = "response"
"""The kind of the records that are responses."""
_PLACE_DIGITS = 4


def item_id(prefix: str, response_id: str, place: int) -> str:
    """The id of an item of a response.

    Args:
        prefix: What it begins with, such as `msg`.
        response_id: The response's.
        place: Its index there.
    """
    return f"{prefix}_{response_id.rpartition('_')[2]}{place:0{_PLACE_DIGITS}x}"


async def resolve(given: Any, records: RecordStore, owner: str, *, max_items: int) -> Any:
    """The `input` of a request with the items themselves in the places of references to them.

    Raises:
        InvalidRequestError: There is no such item that was stored for this principal.
    """
    if not isinstance(given, list) or len(given) > max_items:
        return given  # to be refused, or without references
    responses: dict[str, Sequence[dict[str, Any]]] = {}
    resolved = []
    for position, item in enumerate(given):
        if not isinstance(item, dict) or item.get("type") != "item_reference":
            resolved.append(item)
            continue
        referred = str(item.get("id"))
        response_id = f"resp_{referred.rpartition('_')[2][:-_PLACE_DIGITS]}"
        if response_id not in responses:
            kept = await records.get(RESPONSE, response_id, owner)
            responses[response_id] = orjson.loads(kept)["response"]["output"] if kept is not None else ()
        found = next((item for item in responses[response_id] if item["id"] == referred), None)
        if found is None:
            raise InvalidRequestError(
                f"the item '{referred[:100]}' is not there",
                param=f"input[{position}].id",
                code="item_not_found",
                hint="its response was not stored, was deleted, has expired, or is another key's",
            )
        resolved.append(found)
    return resolved


def new_id(prefix: str) -> str:
    """A new id, such as `resp_…`."""
    return f"{prefix}_{secrets.token_hex(24)}"
