"""The part of a response that was sent. Middleware reads it, so that it need not wrap `send` to measure a request."""

from collections.abc import Mapping
from typing import Any

CLIENT_CLOSED_REQUEST = 499
"""Status of a response during which the client disconnected (nginx's convention)."""


class SentResponse:
    """The progress of one response."""

    def __init__(self) -> None:
        self.status = 0
        """The HTTP status; 0 until the response starts."""
        self.size = 0
        """Number of bytes of the body so far."""
        self.complete = False
        self.failed = False
        """Whether an error interrupted the response after its start."""

    @property
    def started(self) -> bool:
        """Whether the response has a status, which can no longer change."""
        return self.status != 0

    def record(self, message: Mapping[str, Any]) -> None:
        """Record an ASGI message that is sent."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)

    @property
    def final_status(self) -> int:
        """The status to report when the request has ended; 499 if the client disconnected before."""
        return self.status if self.complete or self.failed else CLIENT_CLOSED_REQUEST


def response_of(scope: Mapping[str, Any]) -> SentResponse:
    """Return the response to the HTTP request of an ASGI scope."""
    response: SentResponse = scope["state"]["response"]
    return response
