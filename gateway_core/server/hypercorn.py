"""Runs the Hypercorn server: listening sockets, signals, graceful shutdown and its timeout.

This is the only package that depends on Hypercorn. It does not depend on agents: at shutdown, it calls the engine to
drain the runs.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import itertools
import logging
import os
import signal
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets
from starlette.applications import Starlette

from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config, ServerConfig
from gateway_core.errors import ConfigError, gateway_error_in
from gateway_core.gateway import RunningGateway
from gateway_core.hooks.dispatch import Hooks
from gateway_core.net.addresses import is_loopback as is_loopback
from gateway_core.server.connection_memory import reduce_memory
from gateway_core.server.h11_disconnect import detect_disconnects
from gateway_core.storage.state_dir import check_folder, claim

logger = logging.getLogger(__name__)

ADDRESS_IN_USE = "address_in_use"
"""The code of the error for a port that another process uses."""

MIN_OPEN_FILES = 4096
MAX_OPEN_FILES = 65536

M_MMAP_THRESHOLD = -3
"""https://man7.org/linux/man-pages/man3/mallopt.3.html"""
LARGE_BLOCK_BYTES = 1024 * 1024

# Time for cleanup after `drain_timeout`, before the process is forced to exit.
EXIT_GRACE_SECONDS = 10.0

# Time that other threads have to end at exit.
_THREADS_SECONDS = 2.0

# Intervals of log lines about agents that are still loading; the last one repeats.
_PROGRESS_SECONDS = (2.0, 5.0, 10.0)
_MAX_NAMES = 3

_listeners: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _close_listeners() -> None:
    """Close the listening sockets in a forked child, which would keep the port in use after the gateway has ended."""
    for listener in [*_listeners]:
        if (descriptor := listener.detach()) >= 0:  # `close` would wait for the event loop's reference
            os.close(descriptor)


if hasattr(os, "register_at_fork"):  # not available on Windows
    os.register_at_fork(after_in_child=_close_listeners)


def listen(config: ServerConfig, address: tuple[str, int], source: str = "[server]") -> socket.socket:
    """Open a listening socket. Its connections inherit its socket options.

    Args:
        config: The options of connections.
        address: The host and the port.
        source: The setting of the address, for errors; for the table alone, its key is `host` or `port`.

    Raises:
        ConfigError: The address cannot be used, usually because another process uses it.
    """
    host, port = address[0].strip("[]"), address[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _set_dead_peer_timeouts(listener, config.send_timeout)
        listener.bind((host, port))
        listener.listen(config.backlog)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(error, address, source) from error
    listener.setblocking(False)
    _listeners.add(listener)
    return listener


def exposed_hosts(config: ServerConfig) -> list[str]:
    """Return the addresses to listen on that other hosts can reach."""
    hosts = [config.host, *([config.admin_address[0]] if config.admin_address else [])]
    return [host for host in hosts if not is_loopback(host)]


def _cannot_listen(error: OSError | OverflowError, address: tuple[str, int], source: str) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    number = error.errno if isinstance(error, OSError) else None
    key, hint = "host", "use an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"
    if number == errno.EADDRINUSE:
        key, hint = "port", "stop the process that uses the port, or choose another port with --port"
    elif number == errno.EACCES:
        key, hint = "port", "choose a port from 1024, which needs no privileges"
    if source != "[server]":
        hint = hint.replace(" with --port", "")
    return ConfigError(
        f"cannot listen on {address[0]}:{address[1]}: {reason}",
        source=source if source != "[server]" else f"[server] {key}",
        hint=hint,
        code=ADDRESS_IN_USE if number == errno.EADDRINUSE else None,
    )


def check_exposure(config: Config, hooks: Hooks, access_hint: str | None = None) -> None:
    """Check that other hosts cannot reach a gateway without access control.

    Raises:
        ConfigError: An address is not loopback although no plugin controls access.
    """
    server = config.server
    hosts = {"host": server.host, **({"admin_listen": server.admin_address[0]} if server.admin_address else {})}
    for key, host in hosts.items():
        if not hooks.guarded and not is_loopback(host):
            raise ConfigError(
                f"refusing to listen on {host}: no plugin controls access, so other hosts could use the agents",
                source=f"[server] {key}",
                hint=f"{access_hint or hooks.access_hint}, or listen on 127.0.0.1",
            )


def open_listeners(server: ServerConfig, problems: Problems) -> list[socket.socket]:
    """Open the listening sockets of the gateway: its own, then that of the admin pages.

    Args:
        server: The addresses, and the options of connections.
        problems: Collects the errors of addresses that cannot be used.
    """
    addresses: list[tuple[tuple[str, int], str]] = [((server.host, server.port), "[server]")]
    if server.admin_address:
        addresses.append((server.admin_address, "[server] admin_listen"))
    listeners = []
    for address, source in addresses:
        with problems.collected():
            listeners.append(listen(server, address, source))
    return listeners


def run(app: Starlette, on_start: Callable[[str], None], access_hint: str | None = None) -> None:
    """Serve until a signal requests the shutdown, then drain and return.

    Args:
        app: The application that `app.build` created.
        on_start: Called with the base URL when the agents are loaded. Connections are accepted before.
        access_hint: Advice on protecting a gateway that other hosts can reach. Default: that of the plugins.

    Raises:
        ConfigError: The address cannot be used, or is not loopback although no plugin controls access.
        GatewayError: The gateway cannot start.
    """
    gateway: RunningGateway = app.state.gateway
    config = gateway.config.server
    check_exposure(gateway.config, gateway.hooks, access_hint)
    check_folder(gateway.config.state.folder)
    gateway.owns_process = True
    _raise_open_file_limit()
    _return_large_blocks()
    detect_disconnects()
    reduce_memory()
    with contextlib.ExitStack() as held:
        problems = Problems()
        listeners = [held.enter_context(listener) for listener in open_listeners(config, problems)]
        problems.raise_found()
        if config.admin_address:
            gateway.admin_address = listeners[1].getsockname()[:2]
        admin = listeners[1 if config.admin_address else 0]
        held.enter_context(claim(gateway.config.state.folder, _url_of(admin)))
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(app, gateway, config, listeners, on_start))


async def _serve(
    app: Starlette,
    gateway: RunningGateway,
    config: ServerConfig,
    listeners: Sequence[socket.socket],
    on_start: Callable[[str], None],
) -> None:
    stop = _stop_on_signals()
    _reload_on_hangup(gateway, stop)
    failed: list[BaseException] = []

    def recording_app(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        request = app(scope, receive, send)
        return recorded(request) if scope["type"] == "lifespan" else request

    async def recorded(lifespan: Awaitable[None]) -> None:
        # Hypercorn reports only that the lifespan failed. Keep the exception, to raise it from `_serve`.
        try:
            await lifespan
        except BaseException as error:
            failed.append(gateway_error_in(error) or error)
            raise

    async def announce(url: str) -> None:
        try:
            await _log_progress(gateway, url)
            await gateway.loaded()
        except Exception as error:
            failed.append(error)
            stop.set()
            return
        _freeze_memory()
        on_start(url)

    async def until_stopped() -> None:
        # Hypercorn calls this after the lifespan startup.
        announcing = asyncio.create_task(announce(_url_of(listeners[0])))
        await stop.wait()
        announcing.cancel()
        gateway.engine.stopping = True
        await asyncio.sleep(config.drain_delay)
        _force_exit_after(config.drain_timeout + EXIT_GRACE_SECONDS)
        # Connections are accepted until the last run has ended, and get 503 for a new run.
        await gateway.engine.drain(config.drain_timeout)
        for listener in listeners:
            listener.close()

    try:
        await hypercorn_serve(
            recording_app, _hypercorn_config(config, listeners), shutdown_trigger=until_stopped, mode="asgi"
        )
    except Exception:
        if not failed:
            raise
    if failed:
        raise failed[0] from None


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _log_progress(gateway: RunningGateway, url: str) -> None:
    """Log how many agents are loaded, and which ones are still loading, until all are loaded."""
    loading = asyncio.create_task(gateway.loaded())
    intervals = itertools.chain(_PROGRESS_SECONDS, itertools.repeat(_PROGRESS_SECONDS[-1]))
    try:
        while not loading.done() and not gateway.ready:
            catalog = gateway.catalog
            loaded = len(catalog.agents.keys() | catalog.broken.keys())
            logger.info(
                "listening on %s/v1; loaded %d of %d agents; still loading: %s",
                url,
                loaded,
                loaded + len(catalog.loading),
                _first_names(gateway.importing) or "discovering agents",
            )
            await asyncio.wait([loading], timeout=next(intervals))
    finally:
        loading.cancel()


def _first_names(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join([*names[:_MAX_NAMES], *more])


def _set_dead_peer_timeouts(listener: socket.socket, seconds: float) -> None:
    """Set the socket options with which the kernel closes connections to dead or stalled peers.

    The server cannot do this: its write waits without a timeout while the send buffer is full.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):  # not all options exist on every platform
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _raise_open_file_limit() -> None:
    """Raise the limit of open files, because each connection needs one.

    Raises:
        ConfigError: The maximum of the system is too low for a server.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise ConfigError(
            f"the limit of open files ({soft}) is too low for a server",
            source="ulimit -n",
            hint=f"raise it to at least {MIN_OPEN_FILES}",
        )


class _Config(HypercornConfig):
    """Serves on open sockets. Hypercorn would duplicate them and let child processes inherit the duplicates.

    Args:
        listeners: The sockets; Hypercorn closes them at shutdown.
    """

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        super().__init__()
        self._listeners = [*listeners]

    def create_sockets(self) -> Sockets:
        return Sockets(secure_sockets=[], insecure_sockets=self._listeners, quic_sockets=[])


def _return_large_blocks() -> None:
    """Make the C library return freed blocks to the system from 1 MiB on; by default, it keeps up to 64 MiB of them."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no such setting
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def _hypercorn_config(config: ServerConfig, listeners: Sequence[socket.socket]) -> HypercornConfig:
    hypercorn = _Config(listeners)
    hypercorn.backlog = config.backlog
    hypercorn.keep_alive_timeout = config.keep_alive
    hypercorn.graceful_timeout = config.drain_timeout + 1
    hypercorn.include_server_header = False
    # Hypercorn's access log does not escape control characters in paths.
    hypercorn.accesslog = None
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    # The banner already shows the address.
    hypercorn.errorlog.setLevel(logging.WARNING)
    return hypercorn


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets. A second signal exits the process immediately."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _reload_on_hangup(gateway: RunningGateway, stop: asyncio.Event) -> None:
    """Reload on SIGHUP, but stop if the controlling terminal was closed (the original meaning of SIGHUP)."""
    if not hasattr(signal, "SIGHUP"):
        return
    had_terminal = _has_terminal()
    reloading: set[asyncio.Task[Any]] = set()

    def on_signal() -> None:
        if had_terminal and not _has_terminal():
            stop.set()
            return
        logger.info("SIGHUP: reloading")
        task = asyncio.create_task(_reload(gateway))
        reloading.add(task)
        task.add_done_callback(reloading.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)


async def _reload(gateway: RunningGateway) -> None:
    try:
        catalog = await gateway.reload()
    except Exception:
        logger.exception("reload failed")
    else:
        logger.info(
            "reloaded: generation %d, %d agents, %d broken",
            catalog.generation,
            len(catalog.agents),
            len(catalog.broken),
        )


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _force_exit_after(seconds: float) -> None:
    """Exit the process if the graceful shutdown hangs: since Python 3.12, servers wait for every open connection."""

    def exit_now() -> None:
        logger.error("graceful shutdown timed out; exiting")
        os._exit(0)

    asyncio.get_running_loop().call_later(seconds, exit_now)


def exit_despite_threads(status: int) -> None:
    """Let the process exit with a status although threads that agents started are still running."""
    main = threading.main_thread()
    names = [each.name for each in threading.enumerate() if not each.daemon and each is not main]
    timer = threading.Timer(_THREADS_SECONDS, _exit, [names, status])
    timer.daemon = True
    timer.start()


def _exit(names: Sequence[str], status: int) -> None:
    logger.warning("exiting; threads are still running: %s", ", ".join(names))
    os._exit(status)


def _freeze_memory() -> None:
    """Collect garbage once and freeze the remaining objects, so that later collections skip them."""
    gc.collect()
    gc.freeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:  # not available on Windows
        return None
    return new_event_loop
