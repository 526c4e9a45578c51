"""Lists the addresses at which other hosts can reach a server that listens on all addresses of this machine."""

import ipaddress
import socket
from collections.abc import Iterator

from gateway_core.net.addresses import is_unspecified

CONTAINER_HOST = "host.docker.internal"
"""The name of the host inside a container: https://docs.docker.com/desktop/features/networking/networking-how-tos/"""

CONTAINER_OPTION = f"--add-host={CONTAINER_HOST}:host-gateway"
"""The option of `docker run` that defines the name on Linux."""


def reachable_hosts(host: str) -> list[str]:
    """Return the addresses of this machine, and its name if it has one, as they are written in a URL.

    Args:
        host: The address to listen on. The result is empty unless it stands for all addresses.
    """
    if not is_unspecified(host):
        return []
    name = socket.gethostname()
    names = [] if name in ("", "localhost") else [name]
    return [*dict.fromkeys(_addresses(6 if ":" in host else 4)), *names]


def _addresses(version: int) -> Iterator[str]:
    """Yield the addresses; a socket for IPv6 usually accepts IPv4 as well."""
    import psutil  # imported by servers that need it only

    found = [
        ipaddress.ip_address(entry.address.partition("%")[0])
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    for address in sorted(found, key=lambda each: each.version):
        if address.is_loopback or address.is_link_local or address.version > version:
            continue
        yield f"[{address}]" if address.version == 6 else str(address)
