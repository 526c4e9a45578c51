"""Decorator that attaches an OpenAPI description to an endpoint.

`http/openapi/document.py` assembles the descriptions into `/openapi.json`.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Json = Mapping[str, Any]

_DESCRIPTION = "_agent_gateway_description"
_ANYTHING: Json = {"type": "object"}


def described(
    summary: str,
    *,
    takes: Json | None = None,
    answers: Json | None = None,
    status: int = 200,
    query: Mapping[str, Json] | None = None,
    content: Mapping[str, Json] | None = None,
) -> Callable[[T], T]:
    """Describes an endpoint for `/openapi.json`.

    Args:
        summary: The summary, one line.
        takes: JSON schema of the request body; `None` if there is no body.
        answers: JSON schema of a successful response.
        status: HTTP status of a successful response; a response with status 204 has no body.
        query: Schemas of the query parameters, by name.
        content: Schemas of successful responses in other formats than JSON, by media type.
    """

    def describe(endpoint: T) -> T:
        operation: dict[str, Any] = {"summary": summary}
        if takes is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": takes}}}
        if query:
            operation["parameters"] = [
                {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
            ]
        good: dict[str, Any] = {"description": "Success"}
        if status != 204:
            answered = {} if answers is None and content else {"application/json": answers or _ANYTHING}
            good["content"] = {kind: {"schema": schema} for kind, schema in {**answered, **(content or {})}.items()}
        operation["responses"] = {str(status): good}
        setattr(getattr(endpoint, "__func__", endpoint), _DESCRIPTION, operation)
        return endpoint

    return describe


def description_of(endpoint: object) -> Json | None:
    """Returns the OpenAPI operation attached by `described`, or `None`."""
    operation: Json | None = getattr(endpoint, _DESCRIPTION, None)
    return operation
