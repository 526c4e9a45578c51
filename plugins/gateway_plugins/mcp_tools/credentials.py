"""How the gateway proves to an MCP server who it is: a bearer token from a setting, a file, or an authorization server.

It keeps no token on disk, and shows none.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from urllib.parse import quote_plus

import httpx2

from gateway_plugins.mcp_tools.settings import McpServer, OAuth

_ASK_SECONDS = 10.0
_EARLY_SECONDS = 30.0


class CredentialError(httpx2.TransportError):
    """No token could be had; like a server that cannot be reached, it is tried again later."""


def credential(settings: McpServer) -> httpx2.Auth | None:
    """What signs the requests to a server; `None` where nothing does."""
    if settings.oauth is not None:
        return ClientCredentials(settings.oauth)
    if settings.token_file is not None:
        return TokenFile(settings.token_file)
    if settings.token is not None:
        return Bearer(settings.token.reveal())
    return None


class Bearer(httpx2.Auth):
    """A token that stays the same."""

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign a request."""
        request.headers["authorization"] = self._value
        yield request


class TokenFile(httpx2.Auth):
    """A token in a file that somebody else keeps fresh, such as a cluster's service account token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign a request. Without the file, the server is left to refuse it."""
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
    """A token that an authorization server gives to this gateway (RFC 6749, section 4.4).

    Args:
        settings: Where it is asked for, and with what.
    """

    def __init__(self, settings: OAuth) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._token = ""
        self._until = 0.0

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Sign a request; a token that is refused is replaced once."""
        token = await self._fresh(refused=None)
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["authorization"] = f"Bearer {await self._fresh(refused=token)}"
            yield request

    async def _fresh(self, *, refused: str | None) -> str:
        # Only asking for a token is one at a time; calls go on side by side.
        async with self._lock:
            if self._token in ("", refused) or time.monotonic() > self._until:
                await self._ask()
            return self._token

    async def _ask(self) -> None:
        settings = self._settings
        data = {"grant_type": "client_credentials"} | ({"scope": settings.scope} if settings.scope else {})
        # Both are form-encoded before they are a user name and a password (RFC 6749, section 2.3.1).
        basic = httpx2.BasicAuth(quote_plus(settings.client_id), quote_plus(settings.client_secret.reveal()))
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=_ASK_SECONDS) as client:
            response = await client.post(settings.token_url, data=data, auth=basic)
        if response.status_code != 200:
            raise CredentialError(f"the authorization server answered with status {response.status_code}")
        try:
            answer = response.json()
            token, seconds = str(answer["access_token"]), float(answer.get("expires_in", 300.0))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CredentialError("the authorization server answered something that cannot be read") from None
        self._token, self._until = token, time.monotonic() + seconds - min(_EARLY_SECONDS, seconds / 2)
