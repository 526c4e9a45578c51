"""Tools that are requests to a server: arguments into a URL or a body, an answer into text for a model.

It follows no redirect, uses no proxy of the environment, and tells a model nothing of an answer that failed but its
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

from gateway_core import ForbiddenAddressError, ToolOrigin, mark_tool, resolve_host, sdk_tool_name
from gateway_plugins.gateway_tools.settings import PLACEHOLDER, HttpTool

_SAFE = frozenset({"GET", "HEAD"})
_IN_BODY = frozenset({"POST", "PUT", "PATCH"})
_AGAIN = frozenset({429, 502, 503, 504})
_FIRST_PAUSE = 0.2


class HttpToolError(Exception):
    """Why a call failed, in words that a model may read."""


class HttpCaller:
    """One http tool.

    Args:
        name: What the gateway calls it.
        settings: Where it goes, and its limits.
    """

    def __init__(self, name: str, settings: HttpTool) -> None:
        self._settings = settings
        self._result = jmespath.compile(settings.result) if settings.result is not None else None
        self._properties: Mapping[str, Any] = settings.schema["properties"]
        self._client: httpx2.AsyncClient | None = None
        self.tool = _as_function_tool(name, settings, self.call)

    async def close(self) -> None:
        """Let its connections go."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Make the request.

        Raises:
            HttpToolError: It failed.
        """
        seconds = self._settings.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._call(arguments)
        except TimeoutError:
            raise HttpToolError(f"The tool's server did not answer within {seconds:g} seconds.") from None

    async def _call(self, arguments: Mapping[str, Any]) -> str:
        self._check(arguments)
        url, body = self._filled(arguments)
        tries = 1 + (self._settings.retries if self._settings.method in _SAFE else 0)
        for attempt in range(tries):
            if attempt:
                # Neither thing to be unpredictable for an enemy, nor a secret: it only spreads the load.
                await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
            last = attempt + 1 == tries
            try:
                status, content = await self._send(url, body)
            except httpx2.TransportError:
                if last:
                    raise HttpToolError("The tool's server cannot be reached.") from None
                continue
            if status not in _AGAIN or last:
                return self._read(status, content)
        raise AssertionError("the last try returns or raises")

    def _check(self, arguments: Mapping[str, Any]) -> None:
        schema = self._settings.schema
        missing = [name for name in schema.get("required", []) if name not in arguments]
        unknown = [name for name in arguments if name not in self._properties]
        if missing:
            raise HttpToolError(f"The argument {missing[0]} is missing.")
        if unknown and schema["additionalProperties"] is False:
            raise HttpToolError(f"There is no argument {unknown[0]}.")

    def _filled(self, arguments: Mapping[str, Any]) -> tuple[httpx2.URL, Any]:
        """The URL with its arguments, and the others as a body where the method has one."""
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
        """Try the host's addresses one after the other, as long as none takes the connection."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await resolve_host(url.host, port, url.scheme, self._settings.private)
        except ForbiddenAddressError:
            raise HttpToolError("The tool's server is at an address that the gateway may not connect to.") from None
        except OSError:
            raise HttpToolError("The name of the tool's server cannot be resolved.") from None
        for address in addresses[:-1]:
            try:
                return await self._send_to(address, url, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send_to(addresses[-1], url, body)

    async def _send_to(self, address: str, url: httpx2.URL, body: Any) -> tuple[int, bytes]:
        settings = self._settings
        headers = {name: secret.reveal() for name, secret in settings.headers.items()}
        if self._client is None:
            # A connection is made for one host's certificate, so no other tool's client may share it.
            self._client = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                timeout=settings.timeout,
                # What a server sets for one call is for whoever that was made for, and the next may be for another.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        request = self._client.build_request(
            settings.method,
            url.copy_with(host=address),
            headers={**headers, "host": url.netloc.decode()},
            json=body,
            extensions={"sni_hostname": url.host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            content = b""
            # Unpacked as it comes, so that a small answer that unpacks to a huge one is stopped, too.
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > settings.max_size:
                    raise HttpToolError(f"The tool's server answered more than {settings.max_size} bytes.")
            return answer.status_code, content
        finally:
            await answer.aclose()

    def _read(self, status: int, content: bytes) -> str:
        if 300 <= status < 400:
            raise HttpToolError("The tool's server answered with a redirect, which is not followed.")
        if status >= 400:
            raise HttpToolError(f"The tool's server answered with status {status}.")
        if self._result is None:
            return content.decode(errors="replace")
        try:
            found = self._result.search(json.loads(content))
        except (ValueError, RecursionError, jmespath.exceptions.JMESPathError):
            raise HttpToolError("The tool's server answered something that cannot be read.") from None
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _as_function_tool(name: str, settings: HttpTool, call: Any) -> FunctionTool:
    async def invoke(_context: Any, text: str) -> str:
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            raise HttpToolError("The arguments are no JSON.") from None
        if not isinstance(arguments, dict):
            raise HttpToolError("The arguments are no JSON object.")
        answer: str = await call(arguments)
        return answer

    tool = FunctionTool(
        name=sdk_tool_name(name),
        description=settings.description,
        params_json_schema=settings.schema,
        on_invoke_tool=with_function_tool_failure_error_handler(invoke, lambda *_: None),
        strict_json_schema=False,
        # The SDK's limit would say less than the tool's own; it is the one behind it.
        timeout_seconds=settings.timeout + 1.0,
    )
    set_function_tool_failure_error_function(tool, _failure)
    mark_tool(tool, ToolOrigin("gateway", open=settings.open))
    return tool


def _failure(context: Any, error: Exception) -> str:
    return str(error) if isinstance(error, HttpToolError) else default_tool_error_function(context, error)


def _segment(template: str, arguments: Mapping[str, Any]) -> str:
    """A part of the path with its arguments. It stays one part, and the same one for whoever reads it once more."""
    if PLACEHOLDER.search(template) is None:
        return template
    if any(arguments.get(name) == "" for name in PLACEHOLDER.findall(template)):
        raise HttpToolError("An argument of the address's path may not be empty.")
    filled = _with(template, arguments)
    # Servers and proxies read an escaped slash as a slash, and a backslash as one, too.
    if any(part in (".", "..") for part in unquote(filled).replace("\\", "/").split("/")):
        raise HttpToolError("An argument of the address's path may not make a part of it '.' or '..'.")
    return filled


def _with(template: str, arguments: Mapping[str, Any]) -> str:
    return PLACEHOLDER.sub(lambda found: _quoted(arguments.get(found[1])), template)


def _quoted(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        raise HttpToolError("An argument of the address is missing, or no text or number.")
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, list):
        return [pair for item in value for pair in _pairs(name, item)]
    if isinstance(value, dict):
        return [(name, json.dumps(value))]
    return [(name, str(value).lower() if isinstance(value, bool) else str(value))]
