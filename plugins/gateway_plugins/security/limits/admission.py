"""How much is allowed: requests in a minute, runs at a time, tokens in a day, and failed authentications.

It knows no rules: who may use what at all is decided before.

How the plugin uses it: it is held while the gateway runs (`async with`); `admission` returns `limits.admission(…)`,
`on_run_end` calls `spent`, and `middleware` has `HeadersInReach`, so that answers carry `x-ratelimit-*`. When a
credential is bad, `authenticate` calls `failed_authentication`, which raises once there are too many; a good one is
never refused for what others at the same address do.
"""

import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import GatewayError, RateLimitError, Usage
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.limits.rate_windows import Window, Windows, seconds_up
from gateway_plugins.security.limits.token_budget import TokenBudget
from gateway_plugins.security.settings import LimitSettings

Headers = list[tuple[bytes, bytes]]

_HEADERS: ContextVar[Headers | None] = ContextVar("headers", default=None)
_EVERYTHING = "all"


class Limits:
    """The limits of one gateway.

    Args:
        settings: How much is allowed.
        folder: Where used tokens are kept over a restart; `None` forgets them.
        report: Told when the storage does not answer.
        clock: Where the time comes from.

    Raises:
        ConfigError: The storage cannot be used.
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
        """Take up what was used today.

        Raises:
            ConfigError: The file of used tokens cannot be made or read.
        """
        await self._budget.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write down what was used, and let go of the storage."""
        await self._budget.__aexit__()
        await self._windows.close()

    @asynccontextmanager
    async def admission(self, who: str, agent_id: str) -> AsyncIterator[None]:
        """A run's place, held while it runs; what is left goes into the answer's headers.

        Args:
            who: The id of the key, or of the principal where there is none.
            agent_id: Whose run it is.

        Raises:
            RateLimitError: There is no room; it says when to come back.
        """
        self._check_budget(who)
        with self._place(who, agent_id):
            await self.take(who, agent_id)
            yield

    async def take(self, who: str, agent_id: str) -> Window | None:
        """Count a request. Returns the count that is nearest to its limit; `None` when there is no limit.

        Raises:
            RateLimitError: It is one too many.
        """
        settings, nearest = self._settings, None
        for limit, kind, name in (
            (settings.requests_per_minute, "key", who),
            (settings.agent_requests_per_minute, "agent", agent_id.casefold()),
            (settings.total_requests_per_minute, "total", _EVERYTHING),
        ):
            if limit <= 0:
                continue
            window = await self._windows.count(limit, kind, name)
            if window.exceeded:
                _put_headers("requests", limit, 0, window.resets_in)
                raise RateLimitError(
                    f"{_whose(kind, who, agent_id)} at most {limit} requests in a minute",
                    retry_after=window.resets_in,
                )
            if nearest is None or window.remaining < nearest.remaining:
                nearest = window
        if nearest is not None:
            _put_headers("requests", nearest.limit, nearest.remaining, nearest.resets_in)
        return nearest

    def spent(self, who: str, usage: Usage) -> None:
        """Count what a run has used, well ended or not."""
        if self._settings.tokens_per_day > 0:
            self._budget.add(who, usage.total_tokens)

    async def failed_authentication(self, address: str) -> None:
        """Count a bad credential.

        Args:
            address: Where it came from.

        Raises:
            RateLimitError: There were too many from there.
        """
        limit = self._settings.failed_authentications_per_minute
        if limit <= 0:
            return
        window = await self._windows.count(limit, "address", _network(address))
        if window.exceeded:
            raise RateLimitError(
                "there were too many bad credentials from this address",
                code="too_many_failed_authentications",
                retry_after=window.resets_in,
            )

    def running(self) -> dict[str, int]:
        """How many runs each key and agent has at this moment, for operators."""
        return {f"{kind} {name}": count for (kind, name), count in self._running.items() if count}

    @contextmanager
    def _place(self, who: str, agent_id: str) -> Iterator[None]:
        settings = self._settings
        taken: list[tuple[str, str]] = []
        try:
            for limit, kind, name in (
                (settings.concurrent_runs, "key", who),
                (settings.agent_concurrent_runs, "agent", agent_id.casefold()),
                (settings.total_concurrent_runs, "total", _EVERYTHING),
            ):
                if limit <= 0:
                    continue
                if self._running[kind, name] >= limit:
                    raise RateLimitError(
                        f"{_whose(kind, who, agent_id)} at most {limit} runs at a time",
                        code="too_many_runs",
                        retry_after=1.0,
                    )
                self._running[kind, name] += 1
                taken.append((kind, name))
            yield
        finally:
            for place in taken:
                self._running[place] -= 1
                if not self._running[place]:
                    del self._running[place]

    def _check_budget(self, who: str) -> None:
        limit = self._settings.tokens_per_day
        if limit <= 0:
            return
        left, resets_in = max(0, limit - self._budget.used(who)), self._budget.resets_in()
        _put_headers("tokens", limit, left, resets_in)
        if not left:
            raise RateLimitError(
                f"'{who}' has used its {limit} tokens of this day", code="token_budget_used", retry_after=resets_in
            )


class HeadersInReach:
    """ASGI middleware: what counts a request inside may put what is left into the answer's headers.

    Args:
        app: What is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _HEADERS.set(scope["state"]["headers"] if scope["type"] == "http" else None)
        try:
            await self._app(scope, receive, send)
        finally:
            _HEADERS.reset(token)


def _put_headers(unit: str, limit: int, remaining: int, resets_in: float) -> None:
    # The names and the form of the values are OpenAI's.
    headers = _HEADERS.get()
    if headers is not None:
        headers += [
            (b"x-ratelimit-limit-%b" % unit.encode(), b"%d" % limit),
            (b"x-ratelimit-remaining-%b" % unit.encode(), b"%d" % remaining),
            (b"x-ratelimit-reset-%b" % unit.encode(), b"%ds" % seconds_up(resets_in)),
        ]


def _whose(kind: str, who: str, agent_id: str) -> str:
    return {"key": f"'{who}' may make", "agent": f"the model '{agent_id}' takes"}.get(kind, "the gateway takes")


def _network(address: str) -> str:
    """An address; of IPv6 the network that one machine may have all addresses of."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False))
    return address
