"""Provides the client for one upstream: the official OpenAI client with a pooled aiohttp transport and own parsing.

Retries, authentication and connections come from the official client. This package replaces its reading of answers:
servers differ in the forms of theirs, and the official client's type-driven traversal of each payload and each chunk
costs more than the rest of a call. `chat_api.py` and `responses_api.py` read the answers of the two APIs.
"""

import asyncio
from contextlib import AbstractContextManager
from typing import Any

import aiohttp
import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncOpenAI,
    DefaultAioHttpClient,
    OpenAIError,
)
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from gateway_core import read_off_loop, trace_headers
from gateway_plugins.upstreams import chat_api, responses_api
from gateway_plugins.upstreams.answer_stream import reported_status
from gateway_plugins.upstreams.body_limits import check_redirect, limited
from gateway_plugins.upstreams.circuit_breaker import CircuitBreaker
from gateway_plugins.upstreams.framing import DialectError
from gateway_plugins.upstreams.settings import Upstream

KEEP_ALIVE_SECONDS = 60.0
_NO_KEY = "none"
_APIS: dict[Any, Any] = {ChatCompletion: chat_api, Response: responses_api}
_RAW = "x-stainless-raw-response"


class UpstreamClient(AsyncOpenAI):
    """The official client for one upstream.

    Args:
        upstream: Settings of the upstream.
        breaker: Records each call and failure.
    """

    def __init__(self, upstream: Upstream, breaker: CircuitBreaker | None = None, **options: Any) -> None:
        self.upstream = upstream
        self.breaker = breaker or CircuitBreaker()
        if "http_client" not in options:
            limits = httpx2.Limits(
                max_connections=upstream.max_connections,
                max_keepalive_connections=upstream.max_connections,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            )
            hooks = {"response": [check_redirect, limited(upstream.max_answer)]}
            options["http_client"] = DefaultAioHttpClient(limits=limits, event_hooks=hooks)
        options.setdefault("base_url", upstream.base_url)
        # Local servers need no key, but the client requires one.
        options.setdefault("api_key", upstream.api_key.reveal() if upstream.api_key else _NO_KEY)
        options.setdefault("max_retries", upstream.retries)
        options.setdefault("default_headers", {name: value.reveal() for name, value in upstream.headers.items()})
        options.setdefault("timeout", httpx2.Timeout(upstream.total_timeout, connect=upstream.connect_timeout))
        super().__init__(**options)

    def copy(self, **changes: Any) -> "UpstreamClient":
        """Return a client with other options that shares the connections."""
        own = {"upstream": self.upstream, "breaker": self.breaker, **changes.pop("_extra_kwargs", {})}
        return super().copy(_extra_kwargs=own, **changes)

    with_options = copy

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Send a request."""
        with self.errors():
            return await super().request(*arguments, **named)

    async def post(self, path: str, **options: Any) -> Any:
        """Send a POST request, and read the answers of both APIs in the forms that servers send."""
        self.breaker.calls += 1
        try:
            with self.errors():
                return await self._post(path, **options)
        except OpenAIError as error:
            self.breaker.failure(error)
            raise

    async def _post(self, path: str, **options: Any) -> Any:
        api = _APIS.get(options.get("cast_to"))
        request = {**options.get("options", {})}
        if request.get("post_parser"):
            api = None  # the caller converts the value that the official client reads
        if options.get("stream"):
            # The streams have their own timeout for each part.
            idle = httpx2.Timeout(self.upstream.idle_timeout, connect=self.upstream.connect_timeout)
            request.setdefault("timeout", idle)
            if api is not None:
                options["stream_cls"] = api.STREAM
            async with asyncio.timeout(self.upstream.first_byte_timeout):
                return await super().post(path, **{**options, "options": request})
        async with asyncio.timeout(self.upstream.total_timeout):
            if api is None or _RAW in {str(name).lower() for name in request.get("headers") or ()}:
                return await super().post(path, **options)
            response = await super().post(path, **{**options, "cast_to": httpx2.Response})
        content = response.content
        answer = await read_off_loop(len(content), api.read, content, options.get("body") or {})
        answer._request_id = response.headers.get("x-request-id")
        return answer

    def errors(self, request: httpx2.Request | None = None) -> AbstractContextManager[None]:
        """Convert the errors of reading an answer within the block to those of the official client."""
        return _Errors(self, request)

    def convert(self, error: BaseException, request: httpx2.Request | None) -> OpenAIError | None:
        """Return the official client's error for an error of reading an answer; `None` for another error."""
        request = request or httpx2.Request("POST", self.upstream.base_url)
        match error:
            case DialectError():
                return self._invalid(error, request)
            case APITimeoutError():
                return _connection_error(error, error.request)
            case TimeoutError() | httpx2.TimeoutException():
                return _connection_error(error, request)
            case httpx2.HTTPError() | aiohttp.ClientError():
                return APIConnectionError(request=request)
            case TypeError() | ValueError() | RecursionError():  # undecodable text, or an odd value
                return APIError("the upstream returned an invalid response", request=request, body=None)
        return None

    def _invalid(self, error: DialectError, request: httpx2.Request) -> APIError:
        status = reported_status(error.reported or {})
        body = dict(error.reported) if error.reported is not None else None
        if status is None:
            return APIError(str(error), request=request, body=body)
        # Servers report an error in the answer after they have sent the status 200.
        return self._make_status_error(str(error), body=body, response=httpx2.Response(status, request=request))

    async def _prepare_request(self, request: httpx2.Request) -> None:
        """Add the trace headers. The official client calls it before each attempt."""
        for name, value in trace_headers().items():
            request.headers.setdefault(name, value)


class _Errors(AbstractContextManager[None]):
    """Converts errors within a block. Not a generator: each silent stream holds one, and each call enters two."""

    __slots__ = ("_client", "_request")

    def __init__(self, client: UpstreamClient, request: httpx2.Request | None) -> None:
        self._client = client
        self._request = request

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (converted := self._client.convert(error, self._request)) is not None:
            raise converted from error


def _connection_error(error: Exception, request: httpx2.Request) -> APIConnectionError:
    """Convert a timeout error: the transport also reports refused and closed connections as timeouts."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError | aiohttp.ClientConnectionError) and not isinstance(below, TimeoutError):
            return APIConnectionError(request=request)
        below = below.__cause__ or below.__context__
    return APITimeoutError(request=request)
