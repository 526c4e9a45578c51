"""Checks on demand which upstreams are reachable, and caches the results.

Any response below 500 counts as reachable, including one that rejects the API key. The results do not affect routing.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai
from attrs import define

from gateway_plugins.upstreams.client import UpstreamClient

TIMEOUT_SECONDS = 2.0
REACHABLE_TTL_SECONDS = 10.0
"""Time in seconds for which results are cached if an upstream is reachable."""
UNREACHABLE_TTL_SECONDS = 2.0
"""Time in seconds for which results are cached if no upstream is reachable."""


@define
class HealthCheck:
    """The result of listing an upstream's models."""

    reachable: bool
    problem: str | None
    """The kind of error, or `None` on success."""
    checked_at: float
    """Seconds since the epoch."""


class UpstreamHealth:
    """Checks the upstreams.

    Args:
        clients: Clients of the upstreams, by name.
        on_models: Called with an upstream's name and models after each successful listing.
    """

    def __init__(
        self, clients: Mapping[str, UpstreamClient], on_models: Callable[[str, Sequence[str]], None] = lambda *_: None
    ) -> None:
        self._clients = clients
        self._on_models = on_models
        self._checking: asyncio.Task[None] | None = None
        self.checks: dict[str, HealthCheck] = {}
        """The last result of each upstream, by name."""

    async def any_reachable(self) -> bool:
        """Whether an upstream is reachable, from cached results if they are fresh. Only the first call waits."""
        if self._checking is None and self._stale():
            self._checking = asyncio.create_task(self.check_all())
            self._checking.add_done_callback(self._check_done)
        if not self.checks and self._checking is not None:
            # If the caller is cancelled, the check continues for later callers.
            await asyncio.wait([self._checking])
        return any(check.reachable for check in self.checks.values())

    async def check_all(self) -> None:
        """Check all upstreams now."""
        await asyncio.gather(*(self._check(name, client) for name, client in self._clients.items()))

    async def close(self) -> None:
        """Cancel a check in progress."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking])

    def describe(self, name: str) -> dict[str, Any]:
        """Return the last result of an upstream, for operators."""
        check = self.checks.get(name)
        if check is None:
            return {"reachable": None, "problem": None, "asked_at": None}
        return {"reachable": check.reachable, "problem": check.problem, "asked_at": check.checked_at}

    def _stale(self) -> bool:
        if not self.checks:
            return True
        reachable = any(check.reachable for check in self.checks.values())
        age = time.time() - min(check.checked_at for check in self.checks.values())
        # If the clock was set back, an old result must not be kept forever.
        return not 0 <= age < (REACHABLE_TTL_SECONDS if reachable else UNREACHABLE_TTL_SECONDS)

    def _check_done(self, task: asyncio.Task[None]) -> None:
        self._checking = None
        if not task.cancelled():
            task.exception()

    async def _check(self, name: str, client: UpstreamClient) -> None:
        problem: str | None = None
        reachable = True
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                models = [model.id async for model in client.with_options(max_retries=0).models.list()]
            self._on_models(name, models)
        except openai.APIStatusError as error:
            problem, reachable = f"HTTP {error.status_code}", error.status_code < 500
        except (openai.OpenAIError, TimeoutError) as error:
            problem, reachable = type(error).__name__, False
        except Exception as error:  # it responded, but not with a list of models
            problem = type(error).__name__
        self.checks[name] = HealthCheck(reachable, problem, time.time())
