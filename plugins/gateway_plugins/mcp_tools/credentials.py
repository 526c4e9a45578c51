"""Authenticates the gateway to MCP servers with a bearer token from a setting, a file, or an authorization server.

It writes no token to disk or to the log.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from urllib.parse import quote_plus

import httpx2

from gateway_plugins.mcp_tools.settings import McpServer, OAuth

_TIMEOUT_SECONDS = 10.0
_REFRESH_MARGIN_SECONDS = 30.0


class CredentialError(httpx2.TransportError):
    """No token could be obtained. It is retried later, like a failed connection."""


def credential(settings: McpServer) -> httpx2.Auth | None:
    """Return the authentication whose token changes; `None` for a fixed token, or none at all."""
    if settings.oauth is not None:
        return ClientCredentials(settings.oauth)
    if settings.token_file is not None:
        return TokenFile(settings.token_file)
    return None


class TokenFile(httpx2.Auth):
    """A token in a file that another process refreshes, such as a Kubernetes service account token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the token to a request. Without the file, the request has no token, and the server rejects it."""
        try:
            status = self._path.stat()
            if (version := (status.st_mtime_ns, status.st_size)) != self._seen:
                self._token = self._path.read_text(encoding="utf-8").strip()
                self._seen = version
        except (OSError, UnicodeDecodeError):
            self._token, self._seen = "", None
        if self._token:
            request.headers["authorization"] = f"Bearer {self._token}"
        yield request


class ClientCredentials(httpx2.Auth):
    """A token from an authorization server, by the client credentials grant (RFC 6749, section 4.4).

    Args:
        settings: The token endpoint and the client's credentials.
    """

    def __init__(self, settings: OAuth) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._token = ""
        self._until = 0.0

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Add the token to a request; a rejected token is replaced once."""
        token = await self._current_token(rejected=None)
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["authorization"] = f"Bearer {await self._current_token(rejected=token)}"
            yield request

    async def _current_token(self, *, rejected: str | None) -> str:
        # Only token requests are serialized; calls run concurrently.
        async with self._lock:
            if self._token in ("", rejected) or time.monotonic() > self._until:
                await self._request_token()
            return self._token

    async def _request_token(self) -> None:
        settings = self._settings
        data = {"grant_type": "client_credentials"} | ({"scope": settings.scope} if settings.scope else {})
        # Both are form-encoded before they are a user name and a password (RFC 6749, section 2.3.1).
        basic = httpx2.BasicAuth(quote_plus(settings.client_id), quote_plus(settings.client_secret.reveal()))
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=_TIMEOUT_SECONDS) as client:
            response = await client.post(settings.token_url, data=data, auth=basic)
        if response.status_code != 200:
            raise CredentialError(f"the authorization server returned status {response.status_code}")
        try:
            answer = response.json()
            token, seconds = str(answer["access_token"]), float(answer.get("expires_in", 300.0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CredentialError("the authorization server returned an invalid token response") from None
        self._token, self._until = token, time.monotonic() + seconds - min(_REFRESH_MARGIN_SECONDS, seconds / 2)
