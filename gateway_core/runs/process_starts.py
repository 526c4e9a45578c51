"""Intercepts the functions that start child processes, to record which run and which tool started each one.

A process that a run starts gets the environment variable `AGENT_GATEWAY_RUN`, which its own children inherit, so that
they are found although their parents have ended.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

from gateway_core.runs.run_processes import RunProcesses
from gateway_core.runs.run_scope import POSITION, TOOL_CALL
from gateway_core.types import ToolInfo

# Code that starts processes which outlive runs and ends them itself.
_OWNERS = ("mcp.client.", "agents.sandbox.", "multiprocessing.resource_tracker", "multiprocessing.forkserver")

_SUBMITTED: ContextVar[tuple[RunProcesses, ToolInfo | None] | None] = ContextVar(
    "agent_gateway_submitted", default=None
)
"""The run and the tool that submitted the current work of a pool's thread, which has no context of a run."""

_installed = False


def install() -> None:
    """Intercept the functions. Process-wide and idempotent.

    Call this before the process-wide settings are saved; otherwise the functions are restored.
    """
    global _installed
    if _installed or not hasattr(os, "fork"):  # Windows
        return
    _installed = True
    for name in ("fork", "forkpty"):
        setattr(os, name, _forking(getattr(os, name)))
    for name in ("posix_spawn", "posix_spawnp"):
        setattr(os, name, _executing(getattr(os, name), 2))
    setattr(os, "system", _system(os.system))  # noqa: B010 - its parameter has another name
    for module in (subprocess, sys.modules["_posixsubprocess"]):
        for name in ("_fork_exec", "fork_exec"):
            if function := getattr(module, name, None):
                setattr(module, name, _executing(function, 5))
    setattr(ThreadPoolExecutor, "submit", _submitting(ThreadPoolExecutor.submit))  # noqa: B010 - as above
    try:
        from uvloop import Loop
    except ImportError:
        return
    for name in ("subprocess_exec", "subprocess_shell"):
        setattr(Loop, name, _of_loop(getattr(Loop, name)))


def _current() -> tuple[RunProcesses, ToolInfo | None] | None:
    """Return the record of the run whose code calls, and the tool; `None` if the process does not belong to a run."""
    current = _SUBMITTED.get()
    if (position := POSITION.get()) is not None:
        processes = position.scope.processes
        current = (processes, TOOL_CALL.get()) if processes is not None else None
    if current is None:
        return None
    frame = sys._getframe(2)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_OWNERS):
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return current


def _forking(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def fork() -> Any:
        current = _current()
        result = function()
        pid = result[0] if isinstance(result, tuple) else result
        if current is not None and pid:
            current[0].add(pid, current[1])
        return result

    return fork


def _executing(function: Callable[..., int], place: int) -> Callable[..., int]:
    """Wrap a function whose positional argument at this place is the environment of the process."""

    @wraps(function)
    def execute(*arguments: Any, **options: Any) -> int:
        current = _current()
        if current is None or len(arguments) <= place:
            return function(*arguments, **options)
        marked = _marked(current[0].mark, arguments[place])
        pid = function(*arguments[:place], marked, *arguments[place + 1 :], **options)
        current[0].add(pid, current[1])
        return pid

    return execute


def _of_loop(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    async def start(*arguments: Any, env: Any = None, **options: Any) -> Any:
        current = _current()
        if current is None:
            return await method(*arguments, env=env, **options)
        current[0].expect(current[1])
        marked = _marked(current[0].mark, os.environ if env is None else env)
        transport, protocol = await method(*arguments, env=marked, **options)
        current[0].add(transport.get_pid(), current[1])
        return transport, protocol

    return start


def _system(function: Callable[[Any], int]) -> Callable[[Any], int]:
    @wraps(function)
    def system(command: Any) -> int:
        if _current() is None:
            return function(command)
        sys.audit("os.system", command)
        return os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ), 0)[1]

    return system


def _submitting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def submit(pool: Any, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if (current := _current()) is not None:
            function = partial(_run_submitted, current, function)
        return method(pool, function, *arguments, **options)

    return submit


def _run_submitted(
    current: tuple[RunProcesses, ToolInfo | None], function: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    token = _SUBMITTED.set(current)
    try:
        return function(*arguments, **options)
    finally:
        _SUBMITTED.reset(token)


def _marked(mark: tuple[str, str], environment: Mapping[Any, Any] | Sequence[bytes] | None) -> Any:
    """Return an environment with the mark, in the form in which it was given."""
    if isinstance(environment, Mapping):
        return {**environment, mark[0]: mark[1]}
    if environment is None:
        environment = [name + b"=" + value for name, value in os.environb.items()]
    return [*environment, os.fsencode("=".join(mark))]
