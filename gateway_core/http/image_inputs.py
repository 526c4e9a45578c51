"""Validates image URLs in requests, and fetches the images if `[http] fetch_images` is set.

Otherwise the upstream fetches them. Image data is not parsed. `net/guarded_transport.py` blocks requests to internal
addresses.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError
from gateway_core.net.guarded_transport import GuardedTransport, RefusedAddressError

_FETCH_BYTES = 10 * 1024 * 1024
_FETCH_SECONDS = 10.0
_SCHEMES = ("https", "http", "data")
_SCHEME_CHARACTERS = 16


async def prepare_images(items: Sequence[Mapping[str, Any]], limits: HttpConfig) -> None:
    """Checks the images of a conversation, and replaces their URLs with `data:` URLs if fetching is enabled.

    Raises:
        InvalidRequestError: There are too many images, a URL has an unsupported scheme, or fetching fails.
    """
    images = list(_images(items))
    if len(images) > limits.max_images:
        raise InvalidRequestError(f"the request contains more than {limits.max_images} images", param="messages")
    for image in images:
        if _scheme(image["image_url"]) not in _SCHEMES:
            raise InvalidRequestError(
                "image URLs must begin with https:, http: or data:", param="messages", code="invalid_image_url"
            )
    if limits.fetch_images:
        remote = [image for image in images if _scheme(image["image_url"]) != "data"]
        if remote:
            transport = GuardedTransport(limits.fetch_images_from)
            async with httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client:
                await asyncio.gather(*(_inline(image, client) for image in remote))


def _images(items: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        content = item.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "input_image" and part.get("image_url"):
                yield part


def _scheme(url: str) -> str:
    # `urlsplit` would keep the whole URL, which may contain the image, in its cache.
    scheme, colon, _ = url[:_SCHEME_CHARACTERS].lstrip().partition(":")
    return scheme.lower() if colon else ""


async def _inline(image: dict[str, Any], client: httpx2.AsyncClient) -> None:
    try:
        async with asyncio.timeout(_FETCH_SECONDS), client.stream("GET", image["image_url"]) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200:
                raise _fetch_error(f"the server returned {response.status_code}")
            if not kind.startswith("image/"):
                raise _fetch_error("it is not an image")
            data = b""
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > _FETCH_BYTES:
                    raise _fetch_error(f"it is larger than {_FETCH_BYTES} bytes")
    except RefusedAddressError as error:
        raise _fetch_error(str(error)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        raise _fetch_error("the server is unreachable or timed out") from error
    image["image_url"] = f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _fetch_error(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"an image could not be fetched: {reason}", param="messages", code="invalid_image_url")
