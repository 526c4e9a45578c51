"""Runs the Hypercorn server: its options, signals, graceful shutdown and its timeout.

This is the only package that depends on Hypercorn. It does not depend on agents: at shutdown, it calls the engine to
drain the runs.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets
from starlette.applications import Starlette

from gateway_core.config.problems import Problems
from gateway_core.config.settings import ServerConfig
from gateway_core.errors import gateway_error_in
from gateway_core.gateway import RunningGateway
from gateway_core.server.connection_memory import reduce_memory
from gateway_core.server.h11_disconnect import detect_disconnects
from gateway_core.server.listeners import check_exposure, open_listeners
from gateway_core.server.process import (
    force_exit_after,
    freeze_memory,
    has_terminal,
    loop_factory,
    raise_open_file_limit,
    return_large_blocks,
)
from gateway_core.storage.state_dir import check_folder, claim

logger = logging.getLogger(__name__)

# Time for cleanup after `drain_timeout`, before the process is forced to exit.
EXIT_GRACE_SECONDS = 10.0

# Intervals of log lines about agents that are still loading; the last one repeats.
_PROGRESS_SECONDS = (2.0, 5.0, 10.0)
_MAX_NAMES = 3


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
    raise_open_file_limit()
    return_large_blocks()
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
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
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
        freeze_memory()
        on_start(url)

    async def until_stopped() -> None:
        # Hypercorn calls this after the lifespan startup.
        announcing = asyncio.create_task(announce(_url_of(listeners[0])))
        await stop.wait()
        announcing.cancel()
        gateway.engine.stopping = True
        await asyncio.sleep(config.drain_delay)
        force_exit_after(config.drain_timeout + EXIT_GRACE_SECONDS)
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
    had_terminal = has_terminal()
    reloading: set[asyncio.Task[Any]] = set()

    def on_signal() -> None:
        if had_terminal and not has_terminal():
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
