"""Pages of lists in OpenAI's format: the query parameters `after`, `limit` and `order`."""

from typing import Any

from attrs import frozen
from starlette.requests import Request

from gateway_core.errors import InvalidRequestError

Json = dict[str, Any]

_MAX_LIMIT = 100


@frozen
class PageQuery:
    """The query of a page."""

    after: str | None
    """The id of the last item of the previous page."""
    limit: int
    newest_first: bool


def page_query(request: Request, *, order: str) -> PageQuery:
    """Parses the query of a request.

    Args:
        request: The request.
        order: The default order, `asc` or `desc`.

    Raises:
        InvalidRequestError: The limit is not between 1 and 100, or the order is unknown.
    """
    query = request.query_params
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= _MAX_LIMIT):
        raise InvalidRequestError(f"'limit' must be between 1 and {_MAX_LIMIT}", param="limit")
    order = query.get("order", order)
    if order not in ("asc", "desc"):
        raise InvalidRequestError("'order' must be one of asc, desc", param="order")
    return PageQuery(query.get("after"), int(limit), order == "desc")


def page_of(items: list[Json], query: PageQuery) -> Json:
    """Returns the page of a list.

    Args:
        items: All items, oldest first; each has an `id`.
        query: The query.
    """
    if query.newest_first:
        items = items[::-1]
    start = next((i + 1 for i, item in enumerate(items) if item["id"] == query.after), 0)
    page = items[start : start + query.limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(items),
    }
