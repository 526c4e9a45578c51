"""Receives the operating system's file events through watchdog, and sets an `asyncio.Event` on each.

It does not record what changed. This is the only module that imports watchdog.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from gateway_plugins.hot_reload.snapshot import is_ignored
from gateway_plugins.hot_reload.watch_targets import WatchTarget

# Open and read events are excluded: every import would wake the watcher.
_CHANGES: list[type[events.FileSystemEvent]] = [
    events.DirCreatedEvent,
    events.DirDeletedEvent,
    events.DirMovedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileModifiedEvent,
    events.FileMovedEvent,
]
_JOIN_SECONDS = 2.0


class WatchdogSource:
    """Watches folders in threads. Create it in the event loop; its methods block, so call them in a thread.

    Args:
        targets: Folders to watch.
        wake: Set on each change.
    """

    def __init__(self, targets: Iterable[WatchTarget], wake: asyncio.Event) -> None:
        self._targets = tuple(targets)
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._observer: BaseObserver | None = None

    def start(self) -> None:
        """Start watching.

        Raises:
            OSError: A system limit is reached, or a folder does not exist.
        """
        self._observer = Observer()
        for target in self._targets:
            handler = _Handler(target, self._wake, self._loop)
            self._observer.schedule(handler, target.folder, recursive=target.recursive, event_filter=_CHANGES)
        try:
            self._observer.start()
        except BaseException:
            # A failed start leaves a thread and a file descriptor open.
            self._observer.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether all threads are running."""
        threads = self._threads()
        return len(threads) > len(self._targets) and all(thread.is_alive() for thread in threads)

    @property
    def died(self) -> bool:
        """Whether a thread ended unexpectedly. The thread of a removed folder ends as expected."""
        return any(not thread.is_alive() and thread.should_keep_running() for thread in self._threads())

    def _threads(self) -> list[BaseThread]:
        if self._observer is None:
            return []
        # The thread that reads inotify events; only some of watchdog's observers have one.
        reader = getattr(self._observer, "_inotify_fd", None)
        return [self._observer, *self._observer.emitters, *([reader] if reader is not None else [])]

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            with contextlib.suppress(RuntimeError):  # it never started
                self._observer.join(_JOIN_SECONDS)


class _Handler(events.FileSystemEventHandler):
    """Wakes the loop on relevant events. It must not raise: an exception would silently end watchdog's thread."""

    def __init__(self, target: WatchTarget, wake: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._wake = wake
        self._loop = loop

    def dispatch(self, event: events.FileSystemEvent) -> None:
        try:
            if not self._wake.is_set() and (self._is_relevant(event.src_path) or self._is_relevant(event.dest_path)):
                self._loop.call_soon_threadsafe(self._wake.set)
        except Exception:  # the loop is closed, or a path cannot be decoded: the next scan finds the change
            return

    def _is_relevant(self, path: bytes | str) -> bool:
        name = os.path.basename(os.fsdecode(path))
        return bool(name) and (not is_ignored(name) if self._target.recursive else name in self._target.names)
