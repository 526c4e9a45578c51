"""Hypercorn, as the gateway runs it: sockets, signals, drain, and a certain end.

Another ASGI server could be put in here. It knows nothing of agents: it asks the gateway only to drain its runs.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig
from starlette.applications import Starlette

from gateway_core.config.settings import ServerConfig
from gateway_core.errors import ConfigError
from gateway_core.gateway import RunningGateway
from gateway_core.net.addresses import is_loopback as is_loopback
from gateway_core.server.h11_disconnect import detect_disconnects

logger = logging.getLogger(__name__)

T = TypeVar("T")

FEW_FILES = 4096
MANY_FILES = 65536

# Beyond the time that running answers get, the process may take this long for its own cleaning up.
EXIT_GRACE_SECONDS = 10.0


def listen(config: ServerConfig, address: tuple[str, int]) -> socket.socket:
    """A listening socket; what it is told, every connection inherits.

    Raises:
        ConfigError: The address cannot be used, usually because another process has it.
    """
    host, port = address[0].strip("[]"), address[1]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _cut_dead_peers(listener, config.send_timeout)
        listener.bind((host, port))
        listener.listen(config.backlog)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"cannot listen on {address[0]}:{port}: {reason}",
            source="[server]",
            hint="stop the process that has the port, or choose another one: --port",
        ) from error
    listener.setblocking(False)
    return listener


def run(app: Starlette, on_start: Callable[[str], None]) -> None:
    """Serve until a signal says stop, then drain and return.

    Args:
        app: What `app.build` made.
        on_start: Called with the base URL when the agents are loaded and connections are about to be taken.

    Raises:
        ConfigError: The address cannot be used, or is not loopback although no plugin guards the gateway.
        GatewayError: The gateway cannot start.
    """
    gateway: RunningGateway = app.state.gateway
    config = gateway.config.server
    addresses = [(config.host, config.port), *([config.admin_address] if config.admin_address else [])]
    exposed = [host for host, _ in addresses if not is_loopback(host)]
    if not gateway.hooks.guarded and exposed:
        raise ConfigError(
            f"will not listen on {exposed[0]}: no plugin guards access, so anybody there could use your agents",
            source="[server] host",
            hint="make a key with `agent-gateway keys create NAME`, or listen on 127.0.0.1",
        )
    _allow_many_files()
    detect_disconnects()
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(listen(config, address)) for address in addresses]
        if config.admin_address:
            gateway.admin_port = listeners[1].getsockname()[1]
        _run_loop(_serve(app, gateway, config, listeners, on_start))


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
    draining: list[asyncio.Task[None]] = []

    async def lifespan_first(scope: Any, receive: Any, send: Any) -> None:
        # Hypercorn tells only that a lifespan failed; the cause is the operator's.
        try:
            await app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                failed.append(error)
            raise

    async def until_stopped() -> None:
        # Hypercorn asks for this when the lifespan has started.
        _settle_memory()
        host, port = listeners[0].getsockname()[:2]
        on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        await stop.wait()
        gateway.engine.stopping = True
        await asyncio.sleep(config.drain_delay)
        _exit_for_certain(config.drain_timeout + EXIT_GRACE_SECONDS)
        draining.append(asyncio.create_task(gateway.engine.drain(config.drain_timeout)))

    try:
        await hypercorn_serve(lifespan_first, _hypercorn_config(config, listeners), shutdown_trigger=until_stopped)
    except Exception:
        if failed:
            raise failed[0] from None
        raise


def _cut_dead_peers(listener: socket.socket, seconds: float) -> None:
    """Let the kernel close a connection whose peer takes nothing of what was sent, or is not there any more.

    Nobody else can: a server that waits for room in a socket waits for ever.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):  # not every system has all of them
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _allow_many_files() -> None:
    """A connection is a file: take as many as the system allows, and refuse to start with too few.

    Raises:
        ConfigError: There are too few even so.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        raise ConfigError(
            f"the system lets this process open {soft} files, which is too few for a server",
            source="ulimit -n",
            hint=f"raise it to at least {FEW_FILES}",
        )


def _hypercorn_config(config: ServerConfig, listeners: Sequence[socket.socket]) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.bind = [f"fd://{os.dup(listener.fileno())}" for listener in listeners]
    hypercorn.backlog = config.backlog
    hypercorn.keep_alive_timeout = config.keep_alive
    hypercorn.graceful_timeout = config.drain_timeout + 1
    hypercorn.include_server_header = False
    # Its access log writes a path's control characters as they are.
    hypercorn.accesslog = None
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    # Our banner says where it runs.
    hypercorn.errorlog.setLevel(logging.WARNING)
    return hypercorn


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _reload_on_hangup(gateway: RunningGateway, stop: asyncio.Event) -> None:
    """SIGHUP reloads, unless it means what it is called: then the terminal is gone, and with it who started this."""
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
        logger.exception("the reload failed")
    else:
        logger.info("generation %d: %d agents, %d broken", catalog.generation, len(catalog.agents), len(catalog.broken))


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _exit_for_certain(seconds: float) -> None:
    """End the process although something hangs: Python 3.12 and newer wait for every open connection."""

    def exit_now() -> None:
        logger.error("the gateway did not stop within its time, and is ended")
        os._exit(0)

    asyncio.get_running_loop().call_later(seconds, exit_now)


def _settle_memory() -> None:
    """What is loaded by now stays: collect once, and keep later collections from walking it again and again."""
    gc.collect()
    gc.freeze()


def _run_loop(main: Coroutine[Any, Any, T]) -> T:
    factory = None
    if sys.platform != "win32":
        with contextlib.suppress(ImportError):
            import uvloop

            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
