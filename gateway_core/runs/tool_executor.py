"""Threads for what agents run in threads, apart from those that the gateway itself needs to go on.

An event loop has one executor for everything: the SDK runs plain functions as tools there, and the loop resolves names
there, so a few tools that block would keep every connection from being made. This executor sends the work of a run to
threads of its own, and no agent gets all of them. It stops nothing: a thread that hangs is lost until its tool returns.
"""

import queue
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gateway_core.runs.run_scope import POSITION

_IDLE_SECONDS = 10.0
_RESOLVERS = frozenset({"getaddrinfo", "_getaddrinfo_debug", "getnameinfo"})

_Work = tuple[str, "Future[Any]", Callable[[], Any]]


class ToolExecutor(ThreadPoolExecutor):
    """An event loop's default executor, which keeps runs' work apart.

    Args:
        tools: How many threads there are for all runs together.
        per_agent: How many of them one agent may hold.
    """

    def __init__(self, tools: int, per_agent: int) -> None:
        super().__init__(thread_name_prefix="gateway")
        self._tools = ToolThreads(tools, per_agent)

    @property
    def held(self) -> dict[str, int]:
        """How many of the tools' threads each agent holds at this moment."""
        return self._tools.held

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run it in a thread; in one of the tools' threads when a run asks for it, and it is not a name to resolve."""
        position = POSITION.get()
        if position is None or getattr(fn, "__name__", "") in _RESOLVERS or fn is socket.getaddrinfo:
            return super().submit(fn, *args, **kwargs)
        return self._tools.submit(position.scope.run.agent_id, lambda: fn(*args, **kwargs))


class ToolThreads:
    """Daemon threads, made when they are needed and gone when they are not: one that hangs keeps no process alive.

    Args:
        total: How many there may be.
        per_agent: How many of them one agent may hold; its further work waits, in the order in which it came.
    """

    def __init__(self, total: int, per_agent: int) -> None:
        self._total = total
        self._per_agent = per_agent
        self._ready: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._waiting: dict[str, deque[_Work]] = {}
        self._held: Counter[str] = Counter()
        self._threads = 0
        self._unfinished = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> dict[str, int]:
        """How many threads each agent holds; what stays here when the agent's runs have ended, hangs."""
        with self._lock:
            return dict(self._held)

    def submit(self, agent: str, call: Callable[[], Any]) -> "Future[Any]":
        """Run it for an agent, at once or when a thread is free."""
        future: Future[Any] = Future()
        work = (agent, future, call)
        with self._lock:
            if self._held[agent] >= self._per_agent:
                self._waiting.setdefault(agent, deque()).append(work)
            else:
                self._hand_out(work)
        return future

    def _hand_out(self, work: _Work) -> None:
        self._held[work[0]] += 1
        self._unfinished += 1
        self._ready.put(work)
        if self._unfinished > self._threads and self._threads < self._total:
            self._threads += 1
            threading.Thread(target=self._serve, name="tool", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._ready.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._threads > self._unfinished:
                        self._threads -= 1
                        return
                continue
            _do(work)
            self._done(work[0])
            del work  # its result must not live as long as the thread waits

    def _done(self, agent: str) -> None:
        with self._lock:
            self._unfinished -= 1
            self._held[agent] -= 1
            if not self._held[agent]:
                del self._held[agent]
            if waiting := self._waiting.get(agent):
                next_work = waiting.popleft()
                if not waiting:
                    del self._waiting[agent]
                self._hand_out(next_work)


def _do(work: _Work) -> None:
    _, future, call = work
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
