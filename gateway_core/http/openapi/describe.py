"""What an HTTP endpoint takes and answers, said where it is defined; `/openapi.json` puts it together.

It knows no route and no schema.
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
    """Say what an endpoint takes and answers.

    Args:
        summary: One line.
        takes: The JSON schema of its body; none takes none.
        answers: The JSON schema of a good answer.
        status: Of a good answer; 204 has no body.
        query: The schemas of its query's parameters.
        content: What it answers beside JSON, as schemas by media type.
    """

    def describe(endpoint: T) -> T:
        operation: dict[str, Any] = {"summary": summary}
        if takes is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": takes}}}
        if query:
            operation["parameters"] = [
                {"name": name, "in": "query", "schema": schema} for name, schema in query.items()
            ]
        good: dict[str, Any] = {"description": "Done"}
        if status != 204:
            answered = {} if answers is None and content else {"application/json": answers or _ANYTHING}
            good["content"] = {kind: {"schema": schema} for kind, schema in {**answered, **(content or {})}.items()}
        operation["responses"] = {str(status): good}
        setattr(getattr(endpoint, "__func__", endpoint), _DESCRIPTION, operation)
        return endpoint

    return describe


def description_of(endpoint: object) -> Json | None:
    """What `described` said of it: the parts of an OpenAPI operation."""
    told: Json | None = getattr(endpoint, _DESCRIPTION, None)
    return told
