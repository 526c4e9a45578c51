"""Schedules loads: one at a time, but a slow one does not delay the others.

A change of the process can be attributed to a load that is alone. Therefore each load has a turn, after which the
process-wide settings are restored. A slow load continues while the next ones start. If it fails, or a setting that
imports read changes meanwhile, the agent is loaded again, alone, after all others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field

from gateway_core.catalog.started_work import StartedWork
from gateway_core.sdk.global_settings import GlobalSettings, sdk_patches
from gateway_core.sdk.process_settings import process_settings
from gateway_core.sdk.process_state import Change, ProcessState
from gateway_core.types import AgentEntry

logger = logging.getLogger(__name__)

T = TypeVar("T")

TURN_SECONDS = 0.5
"""Time after which the next load starts."""
MAX_CONCURRENT = 32
_MAX_SOURCES = 50
_MAX_SOURCE_BYTES = 200_000


@define(eq=False)
class Turn:
    """The load of one agent."""

    entry: AgentEntry
    overlapped: bool = False
    """Whether another load ran at the same time."""
    again: bool = False
    """Whether its result is not trusted, because of another load."""
    admitted: bool = False
    """Whether the plugins admitted the agent, so that its own code runs."""
    notes: list[str] = field(factory=list)
    """Warnings about its changes of the process."""
    work: StartedWork | None = None
    """The threads and processes that the import started."""

    def sources(self) -> Iterator[tuple[str, str]]:
        """Return the names and texts of the agent's Python files, with the main file first."""
        main = Path(self.entry.source)
        folder = self.entry.folder
        others = [] if folder is None else [path for path in sorted(folder.rglob("*.py")) if path != main]
        for path in [main, *others[:_MAX_SOURCES]]:
            try:
                yield path.name, path.read_text(errors="replace")[:_MAX_SOURCE_BYTES]
            except OSError:
                continue


class ImportTurns:
    """Gives each load its turn.

    Args:
        settings: The SDK's process-wide settings.
    """

    def __init__(self, settings: GlobalSettings) -> None:
        self._settings = settings
        self.process = ProcessState([*process_settings(), sdk_patches()])
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._starting = asyncio.Lock()
        self._active: dict[Turn, None] = {}
        self._hung: set[Turn] = set()

    @property
    def crowd(self) -> int:
        """Number of active loads."""
        return len(self._active)

    @property
    def active(self) -> list[str]:
        """The ids of the agents whose load has started, in that order."""
        return [turn.entry.id for turn in self._active]

    async def run(self, turn: Turn, load: Callable[[], Awaitable[T]], *, alone: bool) -> T:
        """Wait for the turn of a load, and run it.

        Args:
            turn: Receives the warnings.
            load: Loads the agent.
            alone: Whether no other load may start before it ends.
        """
        async with self._slots:
            async with self._starting:
                if not self._active and not self._hung:
                    self.process.save()
                task = asyncio.ensure_future(load())
                self._active[turn] = None
                if len(self._active) > 1:
                    for each in self._active:
                        each.overlapped = True
                task.add_done_callback(lambda _: self._ended(turn))
                try:
                    await asyncio.wait([task], timeout=None if alone else TURN_SECONDS)
                    if not task.done():
                        self.restore()
                except BaseException:
                    task.cancel()
                    raise
            try:
                return await task
            except BaseException:
                task.cancel()
                raise

    def restore(self, ended: Turn | None = None) -> None:
        """Restore what the active loads changed, and note it.

        Args:
            ended: The load that is complete, if any; it needs its settings no longer.
        """
        for change in [*self._settings.restore(), *self.process.restore()]:
            suspects = [*self._active, *self._hung]
            places = {turn: change.place([*turn.sources()]) for turn in suspects}
            # Only the source of one of the concurrent loads may contain a line that makes the change.
            found = [turn for turn in suspects if places[turn]] or suspects
            for turn in found:
                self._note(turn, change, places[turn], certain=len(found) == 1)
            if change.setting.used_by_imports:
                for turn in self._active:
                    turn.again |= turn.overlapped or turn is not ended

    def hangs(self, turn: Turn, thread: "asyncio.Future[Any]") -> None:
        """Record that the thread of a load is still running although the load has timed out."""
        self._hung.add(turn)
        thread.add_done_callback(lambda _: self._hung.discard(turn))

    def _ended(self, turn: Turn) -> None:
        self.restore(turn)
        self._active.pop(turn, None)

    def _note(self, turn: Turn, change: Change, place: str, *, certain: bool) -> None:
        text = f"loading it {'' if certain else 'or an agent that loaded meanwhile '}changed {change.text(place)}"
        logger.warning("%s: %s", turn.entry.source, text)
        turn.notes.append(text)
