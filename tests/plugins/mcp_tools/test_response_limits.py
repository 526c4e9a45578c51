"""The size of a response counts decompressed, and its JSON values are counted before they are parsed."""

import gzip
import json

import httpx2
import pytest
from gateway_plugins.mcp_tools.request_trace import RequestTrace, TracingTransport, traced
from gateway_plugins.mcp_tools.response_limits import UnreadableError, ValueCounter


class Packed(httpx2.AsyncByteStream):
    def __init__(self, body):
        self._body = gzip.compress(body)

    async def __aiter__(self):
        yield self._body


def client(body):
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    inner = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, stream=Packed(body)))
    return httpx2.AsyncClient(transport=TracingTransport(1000, 20, inner))


async def test_a_compressed_response_is_read_up_to_its_decompressed_size():
    trace = RequestTrace()
    with traced(trace):
        async with client(b"[1]") as small:
            assert (await small.get("http://mcp.example/")).json() == [1]
        assert not trace.exceeded
        async with client(b"a" * 50_000_000) as big:
            with pytest.raises(UnreadableError):
                await big.get("http://mcp.example/")
        assert trace.exceeded == "max_message"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "text/event-stream"])
async def test_a_response_with_many_values_is_not_read_to_its_end(kind):
    async def send():
        yield b'data: {"text": "[,{[,{[,{[,{[,{[,{[,{[,{ \\" [,{", "values": ["'
        for _ in range(100):
            yield b'","'
        pytest.fail("it was read to its end")

    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=send()))
    trace = RequestTrace()
    with traced(trace):
        async with httpx2.AsyncClient(transport=TracingTransport(1000, 20, inner)) as client:
            with pytest.raises((UnreadableError, httpx2.SSEError)):
                await client.get("http://mcp.example/")
    assert trace.exceeded == "max_values"


VALUE = json.dumps({"a": ["[,{" * 9, 'x\\" [,{"\\', {}, [1, {"b\\\\": '"'}]], "\\": [[], "\\\\", ","]}).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_values_are_counted_however_the_text_is_divided(size, end):
    """Each event is counted for itself, and a quote in a comment or a field changes nothing."""
    whole = ValueCounter(events=False).feed(VALUE)
    assert whole == 14
    event = b': "' + end + b"event: message" + end + b"data: " + VALUE + end + end
    for events, text in ((False, VALUE), (True, event * 5)):
        counter = ValueCounter(events=events)
        assert max(counter.feed(text[start : start + size]) for start in range(0, len(text), size)) == whole
