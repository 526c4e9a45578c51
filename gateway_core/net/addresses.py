"""Which addresses may be connected to when somebody else chose the host: public ones, and those an operator names.

A name is resolved once and what it resolved to is connected to, so that nobody can change its mind in between. It
connects to nothing itself.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Addresses that carry an IPv4 address inside, which some network on the way would unpack.
_TUNNELS = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))


class ForbiddenAddressError(Exception):
    """A host resolves to an address that may not be connected to."""


async def resolve(host: str, port: int, scheme: str, private: Sequence[Network]) -> list[str]:
    """The addresses of a host, all of which may be connected to.

    Args:
        host: A name or an address, in whatever notation.
        port: Passed on to the resolver.
        scheme: `http` is for addresses in `private` only.
        private: What an operator has named.

    Raises:
        ForbiddenAddressError: One of them may not be; a name that is partly private is a trap.
        OSError: The name does not resolve.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if not may_connect(address, private, scheme):
            raise ForbiddenAddressError(str(address))
    return list(dict.fromkeys(str(address) for address in addresses))


def may_connect(address: Address, private: Sequence[Network], scheme: str = "https") -> bool:
    """Whether it is named, or public and reached by https."""
    plain = (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
    if any(plain in network for network in private):
        return True
    return scheme == "https" and is_public(plain)


def is_public(address: Address) -> bool:
    """Whether it is on the open internet: not private, loopback, link-local, reserved, multicast or a tunnel."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    tunnelled = isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _TUNNELS)
    return address.is_global and not address.is_multicast and not address.is_reserved and not tunnelled


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at a host's address. No name but `localhost` is resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
