"""Discover, load, equip, and swap: from the entries that plugins find to the agents that are served.

A version that cannot be loaded leaves the last good one serving and touches no other agent. This module does not
know where agents come from; `discover_agents` does.
"""

import asyncio
import contextvars
import logging
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gateway_core.config import Config
from gateway_core.diagnosis import diagnose
from gateway_core.equipping import equip
from gateway_core.errors import DiscoveryError, GatewayError, LoadError
from gateway_core.exports import Offer, resolve
from gateway_core.hooks import Hooks
from gateway_core.sdk_settings import SdkSettings
from gateway_core.types import AgentEntry, BrokenAgent, Catalog, ServedAgent

logger = logging.getLogger(__name__)

T = TypeVar("T")

_VALID_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class CatalogBuilder:
    """Keeps the current catalog, and makes the next one.

    Args:
        hooks: Asked for entries and for tools.
        config: Operators' settings for agents, and the time an import may take.
        announce: Called once for each error.
        settings: The SDK's process-wide settings, put back after each load.
    """

    def __init__(
        self, hooks: Hooks, config: Config, announce: Callable[[GatewayError], None], settings: SdkSettings
    ) -> None:
        self.current = Catalog()
        self._hooks = hooks
        self._config = config
        self._announce = announce
        self._settings = settings
        self._lock = asyncio.Lock()

    async def refresh(self) -> Catalog:
        """Make a new catalog and swap it in. What did not change is not loaded again."""
        async with self._lock:
            entries = await _in_thread(lambda: self._hooks.discover_agents(self._announce))
            agents: dict[str, ServedAgent] = {}
            broken: dict[str, BrokenAgent] = {}
            for entry in self._distinct(entries):
                served, failure = await self._serve(entry)
                if served is not None:
                    agents[entry.id] = served
                if failure is not None:
                    broken[entry.id] = failure
            self.current = Catalog(agents, broken, self.current.generation + 1)
            return self.current

    def _distinct(self, entries: Iterable[AgentEntry]) -> list[AgentEntry]:
        first: dict[str, AgentEntry] = {}
        for entry in entries:
            if not _VALID_ID.fullmatch(entry.id):
                self._announce(
                    DiscoveryError(
                        f"'{entry.id}' cannot be a model's name",
                        source=entry.source,
                        hint="use letters, digits, '_', '-' and '.', and start with none of the last two",
                    )
                )
                continue
            other = first.setdefault(entry.id.casefold(), entry)
            if other is not entry:
                self._announce(
                    DiscoveryError(
                        f"the name '{entry.id}' is taken by {other.source}", source=entry.source, hint="rename one"
                    )
                )
        return list(first.values())

    async def _serve(self, entry: AgentEntry) -> tuple[ServedAgent | None, BrokenAgent | None]:
        """The agent to serve for an entry, and what is wrong with its newest version."""
        serving = self.current.agents.get(entry.id)
        tried = self.current.broken.get(entry.id)
        if tried is not None and tried.digest == entry.digest:
            return serving, tried
        if serving is not None and serving.entry.digest == entry.digest:
            return serving, None
        try:
            return await self._load(entry), None
        except Exception as error:
            diagnosis = diagnose(error, entry.source)
            diagnosis.agent_id = entry.id
            self._announce(diagnosis)
            return serving, BrokenAgent(entry.id, entry.source, diagnosis, entry.digest)

    def _import(self, entry: AgentEntry) -> object:
        self._hooks.admit_agent(entry)
        return entry.load()

    async def _load(self, entry: AgentEntry) -> ServedAgent:
        timeout = self._config.catalog.load_timeout
        try:
            async with asyncio.timeout(timeout):
                exported = await _in_thread(lambda: self._import(entry))
                offer = await resolve(exported, entry.source)
        except TimeoutError:
            raise LoadError(
                f"was not imported within {timeout:g} s",
                source=entry.source,
                hint="does it wait for input or for a server while it is imported?",
                code="timeout",
            ) from None
        finally:
            flipped = self._settings.restore()
        equip(offer.runnable, entry, self._hooks)
        served = _served(entry, offer, flipped)
        if entry.unload is not None:
            # Runs hold the agent that they run: the last one to let go of a replaced version unloads it.
            weakref.finalize(served, entry.unload).atexit = False
        return served


def _served(entry: AgentEntry, offer: Offer, flipped: list[str]) -> ServedAgent:
    name = offer.settings.get("display_name")
    return ServedAgent(
        entry,
        offer.runnable,
        display_name=str(name) if name else entry.id,
        description=offer.description or entry.description,
        model=offer.settings.get("model"),
        warnings=tuple(f"its import changed {what}; it was put back" for what in flipped),
    )


async def _in_thread(call: Callable[[], T]) -> T:
    """Run blocking code in a thread of its own, which may hang without keeping the process from its end.

    `SystemExit` and the like become ordinary errors here, so that a module cannot stop the gateway.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            set_(value)

    def work() -> None:
        try:
            result = context.run(call)
        except BaseException as error:
            error = error if isinstance(error, Exception) else _as_exception(error)
            _hand_over(loop, settle, future.set_exception, error)
        else:
            _hand_over(loop, settle, future.set_result, result)

    threading.Thread(target=work, name="agent-load", daemon=True).start()
    return await future


def _hand_over(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    try:
        loop.call_soon_threadsafe(*call)
    except RuntimeError:  # the gateway has stopped meanwhile
        logger.debug("a load ended after its gateway")


def _as_exception(error: BaseException) -> Exception:
    carrier = _ExitError(f"{type(error).__name__}: {error}")
    carrier.__cause__ = error
    return carrier


class _ExitError(Exception):
    """Carries an exception that is not an `Exception` out of a thread."""
