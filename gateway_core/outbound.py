"""Requests to addresses that somebody else chose: only public ones are reached, whatever their names resolve to.

A name is resolved once, every address that it has is checked, and the connection goes to an address that was checked,
so that a name which changes its mind in between gains nothing. Redirects are not followed by whoever uses this.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection

import httpx2


class RefusedAddress(httpx2.RequestError):
    """The address is none that may be reached from here. Its text names the host, and not where it leads."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport that connects to public addresses only.

    Args:
        allowed_hosts: Names or addresses that may be private and spoken to without TLS, because an operator named them.
        inner: What sends a request to the address that was found.
    """

    def __init__(self, allowed_hosts: Collection[str] = (), inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._allowed = {host.casefold() for host in allowed_hosts}
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to a checked address.

        Raises:
            RefusedAddress: The host has an address that is not public, or TLS is not to be used.
        """
        url, host = request.url, request.url.host
        if url.userinfo:
            raise RefusedAddress("an address may hold no credentials", request=request)
        if host.casefold() not in self._allowed:
            if url.scheme != "https":
                raise RefusedAddress("only https is spoken to a host that is not allowed by name", request=request)
            address = await self._public_address(host, url.port or 443, request)
            # TLS still asks for the name, and so does the Host header, which was set before.
            request.extensions = {**request.extensions, "sni_hostname": host}
            request.url = url.copy_with(host=address)
        return await self._inner.handle_async_request(request)

    async def _public_address(self, host: str, port: int, request: httpx2.Request) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise RefusedAddress(f"the host '{host[:100]}' cannot be found", request=request) from error
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(is_public(address) for address in addresses):
            raise RefusedAddress(f"the host '{host[:100]}' is not public", request=request)
        return addresses[0]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet's: not private, local, reserved or a disguise of one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None or ip in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
