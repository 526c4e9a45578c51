"""The settings of Python and of the operating system that an agent's code can change, although all agents share them.

A module may redirect `sys.stdout`, change the working directory or replace `json.dumps`. In a script, that is its own
business; in the gateway, it affects every agent.
"""

import asyncio
import builtins
import gc
import json
import locale
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from gateway_core.sdk.process_state import MISSING, Setting, Values, attributes, patched, single

# Variables that change every connection of the process, even if they were not set before.
_NETWORK = frozenset(
    name
    for upper in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSLKEYLOGFILE",
    )
    for name in (upper, upper.lower())
)
# Variables that libraries extend for their own files, and that shells maintain.
_EXTENDED = frozenset({"PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PWD", "OLDPWD", "LINES", "COLUMNS", "_"})


class _Environment:
    """The environment variables that the gateway was started with, and those that concern every connection.

    Other new variables stay: a module's tools read what its `.env` file sets.
    """

    def __init__(self) -> None:
        self._names = {*os.environ, *_NETWORK} - _EXTENDED

    def read(self) -> Values:
        return {name: os.environ.get(name, MISSING) for name in self._names}

    def restore(self, name: str, value: Any) -> None:
        if value is MISSING:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _umask() -> int:
    # It cannot be read without being set; meanwhile, new files are private rather than public.
    current = os.umask(0o077)
    os.umask(current)
    return current


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


_ROOT = logging.getLogger()


def _disabled_loggers() -> frozenset[str]:
    loggers = [*_ROOT.manager.loggerDict.items()]
    return frozenset(name for name, each in loggers if isinstance(each, logging.Logger) and each.disabled)


def _enable_loggers(saved: frozenset[str]) -> None:
    for name in _disabled_loggers() - saved:
        logging.getLogger(name).disabled = False


def _set_root_handlers(saved: tuple[logging.Handler, ...]) -> None:
    _ROOT.handlers[:] = saved


def _logging_settings() -> Iterator[Setting]:
    advice = "configure your own logger: logging.getLogger(__name__)"
    for label, read, restore, calls in (
        (
            "the root logger's handlers",
            lambda: tuple(_ROOT.handlers),
            _set_root_handlers,
            r"basicConfig|dictConfig|fileConfig|[aA]ddHandler|removeHandler|handlers|verbose_stdout",
        ),
        ("the root logger's level", lambda: _ROOT.level, _ROOT.setLevel, r"basicConfig|dictConfig|setLevel"),
        ("logging.disable()", lambda: _ROOT.manager.disable, logging.disable, r"logging\.disable"),
        ("the logger class", logging.getLoggerClass, logging.setLoggerClass, "setLoggerClass"),
    ):
        yield single(label, read, restore, advice=advice, calls=calls)
    yield single(
        "which loggers are disabled",
        _disabled_loggers,
        _enable_loggers,
        advice="pass disable_existing_loggers=False",
        calls="dictConfig|fileConfig|disabled",
        unchanged=lambda saved, now: now <= saved,
    )


def _errors_in_warnings() -> tuple[Any, ...]:
    return tuple(entry for entry in warnings.filters if entry[0] == "error")


def _restore_warnings(saved: tuple[Any, ...]) -> None:
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters[:] = [entry for entry in filters if entry[0] != "error" or entry in saved]
    getattr(warnings, "_filters_mutated", lambda: None)()


def _restore_path(saved: tuple[str, ...]) -> None:
    # Added folders move to the end: imports at run time still find them, but they shadow no other module.
    sys.path[:] = [*saved, *(place for place in dict.fromkeys(sys.path) if place not in saved)]


_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD", "SIGPIPE") if hasattr(signal, name)
)


def _restore_signal(item: str, value: Any) -> None:
    if value is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.Signals[item], value)


def _owners() -> dict[str, Any]:
    names = ("tasks", "futures", "runners", "events", "base_events")
    parts: dict[str, Any] = {f"asyncio.{name}": getattr(asyncio, name) for name in names if hasattr(asyncio, name)}
    return {
        "builtins": builtins,
        "json": json,
        "time": time,
        "socket": socket,
        "socket.socket": socket.socket,
        "ssl": ssl,
        "subprocess": subprocess,
        "threading": threading,
        "threading.Thread": threading.Thread,
        "logging.Logger": logging.Logger,
        "asyncio": asyncio,
        **parts,
        "asyncio.BaseEventLoop": asyncio.BaseEventLoop,
        "asyncio.SelectorEventLoop": asyncio.SelectorEventLoop,
    }


def process_settings() -> list[Setting]:
    """Return the settings of Python and of the operating system."""
    environment = _Environment()
    return [
        Setting(
            "the environment variable {}",
            environment.read,
            environment.restore,
            "use another name, or read the file with dotenv_values()",
            r"load_dotenv|environ",
            used_by_imports=True,
        ),
        single(
            "the working directory",
            _working_directory,
            os.chdir,
            advice="write Path(__file__).parent / ...",
            calls="chdir",
            used_by_imports=True,
        ),
        single("the umask", _umask, os.umask, advice="set the mode of each file", calls="umask"),
        single(
            "the order of sys.path",
            lambda: tuple(sys.path),
            _restore_path,
            advice="its folders now come last; put modules into the agent's folder",
            calls=r"sys\.path",
            unchanged=lambda saved, now: now[: len(saved)] == saved,
        ),
        Setting(
            "sys.{}",
            **attributes(sys, "stdin", "stdout", "stderr", "excepthook", "unraisablehook", "displayhook"),
            advice="use contextlib.redirect_stdout(), or a logger",
        ),
        Setting("threading.{}", **attributes(threading, "excepthook"), advice="catch exceptions in the thread"),
        *_logging_settings(),
        single(
            "which warnings are errors",
            _errors_in_warnings,
            _restore_warnings,
            advice="use warnings.catch_warnings()",
            calls=r"simplefilter|filterwarnings",
        ),
        Setting(
            "the handler of {}",
            lambda: {number.name: signal.getsignal(number) for number in _SIGNALS},
            _restore_signal,
            "the gateway handles signals; clean up in teardown()",
            r"signal\.signal",
        ),
        single("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, calls="setrecursionlimit"),
        single(
            "the default timeout of sockets",
            socket.getdefaulttimeout,
            socket.setdefaulttimeout,
            advice="pass a timeout to each call",
            calls="setdefaulttimeout",
        ),
        single(
            "the locale",
            lambda: locale.setlocale(locale.LC_ALL),
            lambda saved: locale.setlocale(locale.LC_ALL, saved),
            advice="use a library that takes a locale, such as babel",
            calls="setlocale",
        ),
        single(
            "garbage collection",
            gc.isenabled,
            lambda enabled: gc.enable() if enabled else gc.disable(),
            calls=r"gc\.(en|dis)able",
        ),
        Setting(
            "the event loop policy",
            **attributes(asyncio.events, "_event_loop_policy"),
            advice="the gateway runs the event loop",
            calls="set_event_loop_policy",
        ),
        patched(_owners()),
    ]
