"""The size of a response counts decompressed."""

import gzip

import httpx2
import pytest
from gateway_plugins.mcp_tools.request_trace import RequestTrace, TracingTransport, UnreadableError, traced


class Packed(httpx2.AsyncByteStream):
    def __init__(self, body):
        self._body = gzip.compress(body)

    async def __aiter__(self):
        yield self._body


def client(body):
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    inner = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, stream=Packed(body)))
    return httpx2.AsyncClient(transport=TracingTransport(1000, inner))


async def test_a_compressed_response_is_read_up_to_its_decompressed_size():
    trace = RequestTrace()
    with traced(trace):
        async with client(b"[1]") as small:
            assert (await small.get("http://mcp.example/")).json() == [1]
        assert not trace.too_big
        async with client(b"a" * 50_000_000) as big:
            with pytest.raises(UnreadableError):
                await big.get("http://mcp.example/")
        assert trace.too_big
