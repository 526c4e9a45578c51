"""Creates the ids of responses and their items. An item's id contains the id of its response, so that no index of items
is needed."""

import secrets

_PLACE_DIGITS = 4


def new_id(prefix: str) -> str:
    """Returns a new random id, such as `resp_…`."""
    return f"{prefix}_{secrets.token_hex(24)}"


def item_id(prefix: str, response_id: str, place: int) -> str:
    """Returns the id of an output item.

    Args:
        prefix: Prefix of the id, such as `msg`.
        response_id: Id of the response.
        place: Index of the item in the response.
    """
    return f"{prefix}_{response_id.rpartition('_')[2]}{place:0{_PLACE_DIGITS}x}"


def response_of(referred: str) -> str:
    """Returns the id of the response that contains an output item."""
    return f"resp_{referred.rpartition('_')[2][:-_PLACE_DIGITS]}"
