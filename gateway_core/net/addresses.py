"""Checks the addresses of untrusted hosts: connections are allowed to public addresses and to configured networks.

A host name is resolved once and the connection uses the checked address, which prevents DNS rebinding. The module opens
no connections.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Networks whose addresses embed an IPv4 address, to which a router may forward (NAT64, 6to4, Teredo).
_TUNNELS = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))


class ForbiddenAddressError(Exception):
    """A host resolves to a forbidden address."""


async def resolve(host: str, port: int, scheme: str, private: Sequence[Network]) -> list[str]:
    """Resolve a host and check all of its addresses.

    Args:
        host: A host name, or an address in any notation.
        port: The port to pass to the resolver.
        scheme: `https`, or `http`, which is allowed only for addresses in `private`.
        private: The networks that the operator allows.

    Raises:
        ForbiddenAddressError: At least one address is forbidden, even if others are not.
        OSError: The name cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if not may_connect(address, private, scheme):
            raise ForbiddenAddressError(str(address))
    return list(dict.fromkeys(str(address) for address in addresses))


def may_connect(address: Address, private: Sequence[Network], scheme: str = "https") -> bool:
    """Return whether an address is in an allowed network, or is public and the scheme is `https`."""
    plain = (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
    if any(plain in network for network in private):
        return True
    return scheme == "https" and is_public(plain)


def is_public(address: Address) -> bool:
    """Return whether an address is public: not private, loopback, link-local, reserved, multicast or a tunnel."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    tunneled = isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _TUNNELS)
    return address.is_global and not address.is_multicast and not address.is_reserved and not tunneled


def is_unspecified(host: str) -> bool:
    """Return whether a host is the address of all interfaces, such as `0.0.0.0`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`. Other names are not resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
