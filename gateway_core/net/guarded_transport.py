"""Requests to hosts that somebody else chose: a transport that connects only where it may.

Which addresses these are is decided in `net/addresses.py`. Whoever uses it must not follow redirects.
"""

from collections.abc import Sequence

import httpx2

from gateway_core.net.addresses import ForbiddenAddressError, Network, resolve


class RefusedAddressError(httpx2.RequestError):
    """The host may not be connected to from here. Its text names the host, and not where it leads."""


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A transport that connects to public addresses by https, and to those that an operator names.

    Args:
        private: Networks that an operator names; plain http is spoken to them, too.
        inner: What sends a request to the address that was found.
    """

    def __init__(self, private: Sequence[Network] = (), inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._private = private
        self._inner = inner or httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to a checked address.

        Raises:
            RefusedAddressError: The host may not be connected to, or cannot be found.
        """
        url = request.url
        if url.userinfo:
            raise RefusedAddressError("an address may hold no credentials", request=request)
        if url.scheme not in ("http", "https"):
            raise RefusedAddressError("only http and https are spoken", request=request)
        try:
            port = url.port or (443 if url.scheme == "https" else 80)
            addresses = await resolve(url.host, port, url.scheme, self._private)
        except ForbiddenAddressError as error:
            raise RefusedAddressError(
                f"the host '{url.host[:100]}' may not be connected to", request=request
            ) from error
        except (OSError, UnicodeError, IndexError) as error:
            raise RefusedAddressError(f"the host '{url.host[:100]}' cannot be found", request=request) from error
        # TLS still asks for the name, and so does the Host header, which was set before.
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.url = url.copy_with(host=addresses[0])
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
