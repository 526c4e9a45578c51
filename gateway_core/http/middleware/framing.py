"""What a request's head must look like, beyond what the server checks: how big it may be, and that its end is certain.

It reads no body.
"""

from starlette.types import Scope

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError

TOO_LARGE = 431
"""https://www.rfc-editor.org/rfc/rfc6585#section-5"""


def check_head(scope: Scope, limits: HttpConfig) -> None:
    """Refuse a head that is too big, or that says in two ways where its body ends.

    Raises:
        InvalidRequestError: It is one of these.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > limits.max_headers:
        raise InvalidRequestError(f"there are more than {limits.max_headers} headers", status=TOO_LARGE)
    if sum(len(name) + len(value) + 4 for name, value in headers) > limits.max_header_bytes:
        raise InvalidRequestError(f"the headers are larger than {limits.max_header_bytes} bytes", status=TOO_LARGE)
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > limits.max_header_bytes:
        raise InvalidRequestError(f"the path is longer than {limits.max_header_bytes} bytes", status=414)
    names = [name for name, _ in headers]
    # Proxies and servers disagree on which of the two counts, and what one takes for a body is the other's next request
    # (https://www.rfc-editor.org/rfc/rfc9112#section-6.3).
    if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
        raise InvalidRequestError("the end of the body is said in more than one way")
