"""Clients cannot make the gateway connect to an internal address, regardless of its notation or resolution."""

import asyncio
import ipaddress

import httpx2
import pytest

from gateway_core.net.guarded_transport import GuardedTransport, RefusedAddressError


class Recorder(httpx2.AsyncBaseTransport):
    def __init__(self):
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request):
        self.requests.append(request)
        return httpx2.Response(200, content=b"ok")


@pytest.fixture
def resolve(monkeypatch):
    """Makes every name resolve to the given addresses."""

    def to(*addresses: str):
        async def getaddrinfo(host, port, **_):
            return [(2, 1, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return to


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://224.0.0.1/",
        "https://user:password@127.0.0.1/",
        "http://93.184.215.14/",
        "ftp://93.184.215.14/",
    ],
)
async def test_internal_addresses_are_rejected(url):
    inner = Recorder()
    async with httpx2.AsyncClient(transport=GuardedTransport(inner=inner)) as client:
        with pytest.raises(RefusedAddressError):
            await client.get(url)
    assert inner.requests == []


async def test_one_internal_address_among_public_ones_is_rejected(resolve):
    inner = Recorder()
    resolve("93.184.215.14", "10.0.0.1")
    async with httpx2.AsyncClient(transport=GuardedTransport(inner=inner)) as client:
        with pytest.raises(RefusedAddressError, match=r"connections to the host 'two\.example' are not allowed"):
            await client.get("https://two.example/")
    assert inner.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(resolve):
    inner = Recorder()
    resolve("93.184.215.14")
    async with httpx2.AsyncClient(transport=GuardedTransport(inner=inner)) as client:
        await client.get("https://name.example/x?y=1")
    [request] = inner.requests
    assert str(request.url) == "https://93.184.215.14/x?y=1"
    assert request.headers["host"] == "name.example"
    assert request.extensions["sni_hostname"] == "name.example"


async def test_an_allowed_network_is_reached(resolve):
    inner = Recorder()
    private = [ipaddress.ip_network("10.1.0.0/16")]
    async with httpx2.AsyncClient(transport=GuardedTransport(private, inner)) as client:
        await client.get("http://10.1.2.3/x")
        with pytest.raises(RefusedAddressError):
            await client.get("http://10.2.2.3/x")
        resolve("10.1.0.9")
        await client.get("http://intranet/x")
    assert [str(request.url) for request in inner.requests] == ["http://10.1.2.3/x", "http://10.1.0.9/x"]


async def test_the_next_address_is_tried_if_one_refuses_the_connection(resolve):
    class FirstRefuses(Recorder):
        async def handle_async_request(self, request):
            if request.url.host == "93.184.215.14":
                raise httpx2.ConnectError("refused")
            return await super().handle_async_request(request)

    inner = FirstRefuses()
    resolve("93.184.215.14", "93.184.215.15")
    async with httpx2.AsyncClient(transport=GuardedTransport(inner=inner)) as client:
        await client.post("https://name.example/x", json={"a": 1})
    assert [(str(r.url), r.read()) for r in inner.requests] == [("https://93.184.215.15/x", b'{"a":1}')]
