"""Provides HTTP tools: sends the arguments in the URL or the body of a request, and returns the response as text.

It does not follow redirects and ignores the environment's proxy settings. Of a failed response, a model sees only the
status.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, unquote, urlencode

import httpx2
import jmespath
from agents import FunctionTool
from agents.tool import (
    default_tool_error_function,
    set_function_tool_failure_error_function,
    with_function_tool_failure_error_handler,
)

from gateway_core import (
    GuardedTransport,
    RefusedAddressError,
    ToolOrigin,
    UnresolvedHostError,
    has_more_values,
    mark_tool,
    read_off_loop,
    sdk_tool_name,
)
from gateway_plugins.gateway_tools.settings import PLACEHOLDER, HttpTool

_SAFE = frozenset({"GET", "HEAD"})
_IN_BODY = frozenset({"POST", "PUT", "PATCH"})
_MAX_VALUES = 250_000
_RETRYABLE = frozenset({429, 502, 503, 504})
_FIRST_BACKOFF = 0.2


class HttpToolError(Exception):
    """A call failed. The message may be shown to a model."""


class HttpCaller:
    """One HTTP tool.

    Args:
        name: Name of the tool.
        settings: Settings of the tool.
    """

    def __init__(self, name: str, settings: HttpTool) -> None:
        self._settings = settings
        self._result = jmespath.compile(settings.result) if settings.result is not None else None
        self._properties: Mapping[str, Any] = settings.schema["properties"]
        self._client: httpx2.AsyncClient | None = None
        self.tool = _as_function_tool(name, settings, self.call)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Send the request, and return the text for the model.

        Raises:
            HttpToolError: The call failed.
        """
        seconds = self._settings.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._call(arguments)
        except TimeoutError:
            raise HttpToolError(f"The tool's server did not respond within {seconds:g} seconds.") from None

    async def _call(self, arguments: Mapping[str, Any]) -> str:
        self._check(arguments)
        url, body = self._filled(arguments)
        tries = 1 + (self._settings.retries if self._settings.method in _SAFE else 0)
        for attempt in range(tries):
            if attempt:
                # The jitter only spreads the load; it is not security-relevant.
                await asyncio.sleep(_FIRST_BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
            last = attempt + 1 == tries
            try:
                status, content = await self._send(url, body)
            except httpx2.TransportError:
                if last:
                    raise HttpToolError("The tool's server is unreachable.") from None
                continue
            if status not in _RETRYABLE or last:
                return await read_off_loop(len(content), self._read, status, content)
        raise AssertionError("the last try returns or raises")

    def _check(self, arguments: Mapping[str, Any]) -> None:
        schema = self._settings.schema
        missing = [name for name in schema.get("required", []) if name not in arguments]
        unknown = [name for name in arguments if name not in self._properties]
        if missing:
            raise HttpToolError(f"The argument {missing[0]} is missing.")
        if unknown and schema["additionalProperties"] is False:
            raise HttpToolError(f"Unknown argument {unknown[0]}.")

    def _filled(self, arguments: Mapping[str, Any]) -> tuple[httpx2.URL, Any]:
        """Return the URL with its arguments, and the remaining arguments as the body if the method has one."""
        settings = self._settings
        in_url = set(PLACEHOLDER.findall(settings.url))
        path, mark, query = settings.url.partition("?")
        filled = "/".join(_segment(each, arguments) for each in path.split("/"))
        address = httpx2.URL(f"{filled}{mark}{_with(query, arguments)}")
        rest = {name: value for name, value in arguments.items() if name not in in_url}
        if settings.method in _IN_BODY:
            return address, rest
        pairs = [pair for name, value in rest.items() for pair in _pairs(name, value)]
        if pairs:
            query = "&".join(filter(None, [address.query.decode(), urlencode(pairs)]))
            address = address.copy_with(query=query.encode())
        return address, None

    async def _send(self, url: httpx2.URL, body: Any) -> tuple[int, bytes]:
        settings = self._settings
        if self._client is None:
            # Each tool has its own client, because connections are verified for one host's certificate.
            self._client = httpx2.AsyncClient(
                transport=GuardedTransport(settings.private),
                headers={name: secret.reveal() for name, secret in settings.headers.items()},
                follow_redirects=False,
                trust_env=False,
                timeout=settings.timeout,
                # Cookies are not kept: the next call may be for another user.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        try:
            async with self._client.stream(settings.method, url, json=body) as answer:
                content = bytearray()
                # Decompressed incrementally, so that a decompression bomb is stopped, too.
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > settings.max_size:
                        raise HttpToolError(f"The tool's server returned more than {settings.max_size} bytes.")
                return answer.status_code, bytes(content)
        except UnresolvedHostError:
            raise HttpToolError("The host name of the tool's server could not be resolved.") from None
        except RefusedAddressError:
            raise HttpToolError("The address of the tool's server is not allowed.") from None

    def _read(self, status: int, content: bytes) -> str:
        if 300 <= status < 400:
            raise HttpToolError("The tool's server returned a redirect, which is not followed.")
        if status >= 400:
            raise HttpToolError(f"The tool's server returned status {status}.")
        if self._result is None:
            return content.decode(errors="replace")
        if has_more_values(_MAX_VALUES, content):
            raise HttpToolError(f"The tool's server returned more than {_MAX_VALUES} JSON values.")
        try:
            found = self._result.search(json.loads(content))
        except (ValueError, RecursionError, jmespath.exceptions.JMESPathError):
            raise HttpToolError("The tool's server returned an invalid response.") from None
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _as_function_tool(name: str, settings: HttpTool, call: Any) -> FunctionTool:
    async def invoke(_context: Any, text: str) -> str:
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            raise HttpToolError("The arguments are not valid JSON.") from None
        if not isinstance(arguments, dict):
            raise HttpToolError("The arguments are not a JSON object.")
        answer: str = await call(arguments)
        return answer

    tool = FunctionTool(
        name=sdk_tool_name(name),
        description=settings.description,
        params_json_schema=settings.schema,
        on_invoke_tool=with_function_tool_failure_error_handler(invoke, lambda *_: None),
        strict_json_schema=False,
        # The SDK's timeout is a backstop: the tool's own timeout comes first, and has a better message.
        timeout_seconds=settings.timeout + 1.0,
    )
    set_function_tool_failure_error_function(tool, _failure)
    mark_tool(tool, ToolOrigin("gateway", open=settings.open))
    return tool


def _failure(context: Any, error: Exception) -> str:
    return str(error) if isinstance(error, HttpToolError) else default_tool_error_function(context, error)


def _segment(template: str, arguments: Mapping[str, Any]) -> str:
    """Fill a path segment. The result stays a single segment, even if it is decoded repeatedly."""
    if PLACEHOLDER.search(template) is None:
        return template
    if any(arguments.get(name) == "" for name in PLACEHOLDER.findall(template)):
        raise HttpToolError("An argument in the URL path must not be empty.")
    filled = _with(template, arguments)
    # Servers and proxies may treat an escaped slash or a backslash as a slash.
    if any(part in (".", "..") for part in unquote(filled).replace("\\", "/").split("/")):
        raise HttpToolError("An argument in the URL path must not result in a '.' or '..' segment.")
    return filled


def _with(template: str, arguments: Mapping[str, Any]) -> str:
    return PLACEHOLDER.sub(lambda found: _quoted(arguments.get(found[1])), template)


def _quoted(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        raise HttpToolError("An argument in the URL is missing, or is not a string or a number.")
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, list):
        return [pair for item in value for pair in _pairs(name, item)]
    if isinstance(value, dict):
        return [(name, json.dumps(value))]
    return [(name, str(value).lower() if isinstance(value, bool) else str(value))]
