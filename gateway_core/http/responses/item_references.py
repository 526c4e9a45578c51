"""Resolves references to items of earlier responses, which some clients send to continue a conversation.

An item's id contains the id of its response, so no index of items is needed.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from gateway_core.errors import InvalidRequestError
from gateway_core.hooks.specs import RecordStore

RESPONSE = "response"
"""The record kind of stored responses."""
_PLACE_DIGITS = 4


def item_id(prefix: str, response_id: str, place: int) -> str:
    """Returns the id of an output item.

    Args:
        prefix: Prefix of the id, such as `msg`.
        response_id: Id of the response.
        place: Index of the item in the response.
    """
    return f"{prefix}_{response_id.rpartition('_')[2]}{place:0{_PLACE_DIGITS}x}"


async def resolve(given: Any, records: RecordStore, owner: str, *, max_items: int) -> Any:
    """Replaces item references in the `input` of a request by the items.

    Raises:
        InvalidRequestError: This principal has no stored item with that id.
    """
    if not isinstance(given, list) or len(given) > max_items:
        return given  # a string, or rejected later
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
                f"the item '{referred[:100]}' was not found",
                param=f"input[{position}].id",
                code="item_not_found",
                hint="its response was not stored, was deleted, has expired, or belongs to another key",
            )
        resolved.append(found)
    return resolved


def new_id(prefix: str) -> str:
    """Returns a new random id, such as `resp_…`."""
    return f"{prefix}_{secrets.token_hex(24)}"
