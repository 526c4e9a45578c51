"""The operating system's events about files, heard through watchdog: each sets an event on the loop, and does no more.

What changed is not its business. This is the only module that knows watchdog.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from gateway_plugins.hot_reload.snapshot import is_ignored
from gateway_plugins.hot_reload.watch_targets import WatchTarget

# Opening and reading are none: every import would wake the watcher.
_CHANGES: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
_JOIN_SECONDS = 2.0


class WatchdogSource:
    """Listens to some folders, in threads. Must be made in the event loop; the methods block, and run in a thread.

    Args:
        wake: Set for each change.
    """

    def __init__(self, places: Iterable[WatchTarget], wake: asyncio.Event) -> None:
        self._places = tuple(places)
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._observer: BaseObserver | None = None

    def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: The system's limit is reached.
        """
        self._observer = Observer()
        for place in self._places:
            handler = _Handler(place, self._wake, self._loop)
            self._observer.schedule(handler, place.folder, recursive=place.recursive, event_filter=_CHANGES)
        try:
            self._observer.start()
        except BaseException:
            # It has a thread and a descriptor already, although it did not start.
            self._observer.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether every thread that should listen does."""
        threads = self._threads()
        return len(threads) > len(self._places) and all(thread.is_alive() for thread in threads)

    @property
    def died(self) -> bool:
        """Whether a thread ended that nothing has told to: the one for a folder ends by itself when that is removed."""
        return any(not thread.is_alive() and thread.should_keep_running() for thread in self._threads())

    def _threads(self) -> list[BaseThread]:
        if self._observer is None:
            return []
        # The thread that reads from the system, which only some of watchdog's observers have.
        reader = getattr(self._observer, "_inotify_fd", None)
        return [self._observer, *self._observer.emitters, *([reader] if reader is not None else [])]

    def stop(self) -> None:
        """Stop listening."""
        if self._observer is not None:
            self._observer.stop()
            with contextlib.suppress(RuntimeError):  # it never started
                self._observer.join(_JOIN_SECONDS)


class _Handler(FileSystemEventHandler):
    """An exception in here would end watchdog's thread without a word."""

    def __init__(self, place: WatchTarget, wake: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._place = place
        self._wake = wake
        self._loop = loop

    def dispatch(self, event: FileSystemEvent) -> None:
        try:
            if not self._wake.is_set() and (self._counts(event.src_path) or self._counts(event.dest_path)):
                self._loop.call_soon_threadsafe(self._wake.set)
        except Exception:  # the loop is closed, or a path is no text: the next look finds what this one missed
            return

    def _counts(self, path: bytes | str) -> bool:
        name = os.path.basename(os.fsdecode(path))
        return bool(name) and (not is_ignored(name) if self._place.recursive else name in self._place.names)
