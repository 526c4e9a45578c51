"""A thread pool for the blocking work of runs, separate from the threads of the gateway itself.

An event loop has one default executor: the SDK runs synchronous tools in it, and the loop resolves host names in it, so
a few blocking tools would prevent all new connections. This executor runs the work of agents in separate threads, and
limits the threads per agent. It cannot stop a thread: a blocked thread stays occupied until its tool returns.
"""

import contextvars
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
    """A default executor of an event loop that isolates the work of runs.

    Args:
        tools: Maximum number of threads for all runs together.
        per_agent: Maximum number of threads for one agent.
    """

    def __init__(self, tools: int, per_agent: int) -> None:
        super().__init__(thread_name_prefix="gateway")
        self._tools = ToolThreads(tools, per_agent)

    @property
    def held(self) -> dict[str, int]:
        """Number of tool threads that each agent currently occupies."""
        return self._tools.held

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a function in a thread: in a tool thread if a run submits it, except for name resolution."""
        position = POSITION.get()
        if position is None or getattr(fn, "__name__", "") in _RESOLVERS or fn is socket.getaddrinfo:
            return super().submit(fn, *args, **kwargs)
        # `loop.run_in_executor` does not copy the context, unlike `asyncio.to_thread`.
        context = contextvars.copy_context()
        return self._tools.submit(position.scope.run.agent_id, lambda: context.run(fn, *args, **kwargs))


class ToolThreads:
    """A pool of daemon threads, created on demand and ended when idle. A blocked thread does not delay process exit.

    Args:
        total: Maximum number of threads.
        per_agent: Maximum number of threads for one agent; its further work is queued in order.
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
        """Number of threads that each agent occupies; threads without an active run are blocked."""
        with self._lock:
            return dict(self._held)

    def submit(self, agent: str, call: Callable[[], Any]) -> "Future[Any]":
        """Run a function for an agent, immediately or when a thread becomes free."""
        future: Future[Any] = Future()
        work = (agent, future, call)
        with self._lock:
            if self._held[agent] >= self._per_agent:
                self._waiting.setdefault(agent, deque()).append(work)
            else:
                self._dispatch(work)
        return future

    def _dispatch(self, work: _Work) -> None:
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
            _execute(work)
            self._done(work[0])
            del work  # do not keep its result alive while the thread is idle

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
                self._dispatch(next_work)


def _execute(work: _Work) -> None:
    _, future, call = work
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except StopIteration as error:
        # An asyncio future does not accept it: before Python 3.12, the awaiting task would never resume.
        replacement = RuntimeError("a function raised StopIteration")
        replacement.__cause__ = error
        future.set_exception(replacement)
    except BaseException as error:
        future.set_exception(error)
