"""An HTTPX transport for requests to untrusted hosts, which connects to allowed addresses only.

`net/addresses.py` defines the allowed addresses. Clients that use the transport must not follow redirects.
"""

from collections.abc import Sequence

import httpx2

from gateway_core.net.addresses import ForbiddenAddressError, Network, resolve


class RefusedAddressError(httpx2.RequestError):
    """Connections to the host are forbidden. The message contains the host, but not its addresses."""


class UnresolvedHostError(RefusedAddressError):
    """The host name cannot be resolved."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport that connects to public addresses over https, and to networks that the operator allows.

    Args:
        private: The networks that the operator allows, also over plain http.
        inner: The transport that sends a request to the checked address.
    """

    def __init__(self, private: Sequence[Network] = (), inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._private = private
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first address of the host that accepts a connection, if all addresses are allowed.

        Raises:
            RefusedAddressError: Connections to the host are forbidden.
            UnresolvedHostError: It cannot be resolved.
        """
        url = request.url
        if url.userinfo:
            raise RefusedAddressError("a URL must not contain credentials", request=request)
        if url.scheme not in ("http", "https"):
            raise RefusedAddressError("unsupported URL scheme: use http or https", request=request)
        try:
            port = url.port or (443 if url.scheme == "https" else 80)
            addresses = await resolve(url.host, port, url.scheme, self._private)
        except ForbiddenAddressError as error:
            raise RefusedAddressError(
                f"connections to the host '{url.host[:100]}' are not allowed", request=request
            ) from error
        except (OSError, UnicodeError, IndexError) as error:
            raise UnresolvedHostError(f"the host '{url.host[:100]}' cannot be resolved", request=request) from error
        # TLS verifies the original name. The Host header was set before and contains it, too.
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        for address in addresses[:-1]:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        request.url = url.copy_with(host=addresses[-1])
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
