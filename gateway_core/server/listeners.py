"""Opens the listening sockets of the gateway, and checks that other hosts may reach them."""

import errno
import os
import socket
import weakref

from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config, ServerConfig
from gateway_core.errors import ConfigError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.net.addresses import is_loopback

ADDRESS_IN_USE = "address_in_use"
"""The code of the error for a port that another process uses."""

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


def exposed_hosts(config: ServerConfig) -> list[str]:
    """Return the addresses to listen on that other hosts can reach."""
    hosts = [config.host, *([config.admin_address[0]] if config.admin_address else [])]
    return [host for host in hosts if not is_loopback(host)]


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
