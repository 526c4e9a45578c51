"""Validates request headers beyond the server's own checks: their size, and unambiguous body framing.

It does not read the body.
"""

from starlette.types import Scope

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError
from gateway_core.http.middleware.request_context import close_connection

TOO_LARGE = 431
"""https://www.rfc-editor.org/rfc/rfc6585#section-5"""


def check_head(scope: Scope, limits: HttpConfig) -> None:
    """Rejects headers that are too large or have conflicting body framing.

    Raises:
        InvalidRequestError: The headers or the path exceed a limit, or the framing headers conflict.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > limits.max_headers:
        raise InvalidRequestError(f"the request has more than {limits.max_headers} headers", status=TOO_LARGE)
    if sum(len(name) + len(value) + 4 for name, value in headers) > limits.max_header_bytes:
        raise InvalidRequestError(f"the headers are larger than {limits.max_header_bytes} bytes", status=TOO_LARGE)
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > limits.max_header_bytes:
        raise InvalidRequestError(f"the path is longer than {limits.max_header_bytes} bytes", status=414)
    names = [name for name, _ in headers]
    # Request smuggling: proxies and servers disagree on which header takes precedence
    # (https://www.rfc-editor.org/rfc/rfc9112#section-6.3).
    if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
        # The following bytes could be another request, or a part of this one.
        close_connection(scope)
        raise InvalidRequestError("conflicting Content-Length and Transfer-Encoding headers")
