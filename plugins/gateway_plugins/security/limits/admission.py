"""Enforces limits: requests per minute, concurrent runs, tokens per day, and failed authentications per minute.

It does not authorize callers; that happens before.

The plugin keeps `Limits` open while the gateway runs (`async with`). Its hook `admission` returns
`limits.admission(…)`, `on_run_end` calls `add_usage`, and `middleware` includes `RateLimitHeaders`, which adds the
`x-ratelimit-*` headers to responses. For an invalid credential, `authenticate` calls `failed_authentication`, which
raises once the address exceeds its limit; a valid credential is never refused because of other clients at the address.
"""

import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import GatewayError, RateLimitError, Usage
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.limits.rate_windows import Window, Windows, whole_seconds
from gateway_plugins.security.limits.token_budget import TokenBudget
from gateway_plugins.security.settings import LimitSettings

Headers = list[tuple[bytes, bytes]]

_HEADERS: ContextVar[Headers | None] = ContextVar("headers", default=None)
_EVERYTHING = "all"


class Limits:
    """The limits of one gateway.

    Args:
        settings: The limits.
        folder: The folder for token counts, which survive a restart there; `None` keeps them in memory.
        report: Called with an error when the storage does not respond.
        clock: The source of time.
    """

    def __init__(
        self,
        settings: LimitSettings,
        folder: Path | None,
        report: Callable[[GatewayError], None],
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        self._settings = settings
        self._windows = Windows(settings.storage, report, clock)
        self._running: Counter[tuple[str, str]] = Counter()
        self._budget = TokenBudget(folder if settings.tokens_per_day else None, clock)

    async def __aenter__(self) -> "Limits":
        """Open the storage of request counts, and load today's token counts.

        Raises:
            ConfigError: The storage cannot be used, or the file of token counts cannot be created or read.
        """
        self._windows.open()
        await self._budget.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write the token counts and close the storage."""
        await self._budget.__aexit__()
        await self._windows.close()

    def admission(self, caller: str, agent_id: str) -> AbstractAsyncContextManager[None]:
        """Return the context of a run. Entering it counts a request, adds the remaining quota to the response headers,
        and takes a run slot until the context is left.

        Args:
            caller: The id of the key, or of the principal for a request without a key.
            agent_id: The id of the agent.

        Raises:
            RateLimitError: On entry, a limit is exceeded; `retry_after` gives the seconds to wait.
        """
        return _Admission(self, caller, agent_id)

    async def count_request(self, caller: str, agent_id: str) -> Window | None:
        """Count a request. Returns the window with the fewest remaining requests; `None` without a limit.

        Raises:
            RateLimitError: The request exceeds a limit.
        """
        settings, nearest = self._settings, None
        limits = settings.requests_per_minute, settings.agent_requests_per_minute, settings.total_requests_per_minute
        for limit, kind, name in _counters(caller, agent_id, *limits):
            window = await self._windows.count(limit, kind, name)
            if window.exceeded:
                _add_headers("requests", limit, 0, window.resets_in)
                raise RateLimitError(
                    f"too many requests for {_subject(kind, caller, agent_id)} (limit: {limit} per minute)",
                    retry_after=window.resets_in,
                )
            if nearest is None or window.remaining < nearest.remaining:
                nearest = window
        if nearest is not None:
            _add_headers("requests", nearest.limit, nearest.remaining, nearest.resets_in)
        return nearest

    def add_usage(self, caller: str, usage: Usage) -> None:
        """Count the tokens of a run, successful or not."""
        if self._settings.tokens_per_day > 0:
            self._budget.add(caller, usage.total_tokens)

    async def failed_authentication(self, address: str) -> None:
        """Count a failed authentication.

        Args:
            address: The client's address.

        Raises:
            RateLimitError: The address exceeded its limit.
        """
        limit = self._settings.failed_authentications_per_minute
        if limit <= 0:
            return
        window = await self._windows.count(limit, "address", _network(address))
        if window.exceeded:
            raise RateLimitError(
                "too many failed authentications from this address",
                code="too_many_failed_authentications",
                retry_after=window.resets_in,
            )

    def running(self) -> dict[str, int]:
        """Number of active runs of each key and agent that a limit counts."""
        return {f"{kind} {name}": count for (kind, name), count in self._running.items() if count}

    def take_slots(self, caller: str, agent_id: str) -> list[tuple[str, str]]:
        """Take a slot of each limit on concurrent runs, and return them.

        Raises:
            RateLimitError: A limit is reached. No slot is taken.
        """
        settings = self._settings
        limits = settings.concurrent_runs, settings.agent_concurrent_runs, settings.total_concurrent_runs
        wanted = _counters(caller, agent_id, *limits)
        for limit, kind, name in wanted:
            if self._running[kind, name] >= limit:
                raise RateLimitError(
                    f"too many concurrent runs for {_subject(kind, caller, agent_id)} (limit: {limit})",
                    code="too_many_runs",
                    retry_after=1.0,
                )
        taken = [(kind, name) for _, kind, name in wanted]
        self._running.update(taken)
        return taken

    def release_slots(self, taken: list[tuple[str, str]]) -> None:
        """Release the slots of a run."""
        for place in taken:
            self._running[place] -= 1
            if not self._running[place]:
                del self._running[place]

    def check_budget(self, caller: str) -> None:
        """Check that the caller has tokens left for today, and add the quota to the response headers.

        Raises:
            RateLimitError: The tokens are used up.
        """
        limit = self._settings.tokens_per_day
        if limit <= 0:
            return
        left, resets_in = max(0, limit - self._budget.used(caller)), self._budget.resets_in()
        _add_headers("tokens", limit, left, resets_in)
        if not left:
            raise RateLimitError(
                f"'{caller}' has used its {limit} tokens for today", code="token_budget_used", retry_after=resets_in
            )


class _Admission:
    """The context of one run. It is not a generator, because a run holds it and those take ten times the memory."""

    __slots__ = ("_agent_id", "_caller", "_limits", "_taken")

    def __init__(self, limits: Limits, caller: str, agent_id: str) -> None:
        self._limits = limits
        self._caller = caller
        self._agent_id = agent_id
        self._taken: list[tuple[str, str]] = []

    async def __aenter__(self) -> None:
        self._limits.check_budget(self._caller)
        self._taken = self._limits.take_slots(self._caller, self._agent_id)
        try:
            await self._limits.count_request(self._caller, self._agent_id)
        except BaseException:
            self._limits.release_slots(self._taken)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._limits.release_slots(self._taken)


class RateLimitHeaders:
    """ASGI middleware that lets `Limits` add rate limit headers to the response.

    Args:
        app: The wrapped application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Each request has its own task, so that no other request sees the value.
        _HEADERS.set(scope["state"]["headers"] if scope["type"] == "http" else None)
        return self._app(scope, receive, send)


def _add_headers(unit: str, limit: int, remaining: int, resets_in: float) -> None:
    # Names and value formats follow OpenAI's API.
    headers = _HEADERS.get()
    if headers is not None:
        headers += [
            (b"x-ratelimit-limit-%b" % unit.encode(), b"%d" % limit),
            (b"x-ratelimit-remaining-%b" % unit.encode(), b"%d" % remaining),
            (b"x-ratelimit-reset-%b" % unit.encode(), b"%ds" % whole_seconds(resets_in)),
        ]


def _counters(caller: str, agent_id: str, key: int, agent: int, total: int) -> list[tuple[int, str, str]]:
    """The limit, kind and name of each counter that has a limit."""
    counters = ((key, "key", caller), (agent, "agent", agent_id.casefold()), (total, "total", _EVERYTHING))
    return [counter for counter in counters if counter[0] > 0]


def _subject(kind: str, caller: str, agent_id: str) -> str:
    return {"key": f"'{caller}'", "agent": f"the model '{agent_id}'"}.get(kind, "the gateway")


def _network(address: str) -> str:
    """The address itself; for IPv6 its /64 network, because one host may use all of its addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False))
    return address
