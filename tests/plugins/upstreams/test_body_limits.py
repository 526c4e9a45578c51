"""The size of answers, redirects and the time of a whole answer are limited."""

import asyncio
import gzip
import json
import time
import tracemalloc

import pytest

from tests.plugins.upstreams.test_odd_servers import SSE, ask, completion, gateway
from tests.support.upstream import FakeUpstream, Reply, json_reply

JSON = {"content-type": "application/json"}
ERROR = (None, None, "upstream_error")
OK = ("ok", "stop", None)
MIB = 1024 * 1024


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [SSE, JSON])
async def test_a_small_answer_that_stands_for_gigabytes_stops_at_the_limit(headers, stream):
    member = gzip.compress(b"a" * (64 * MIB))
    packed = {**headers, "content-encoding": "gzip"}
    upstream, started = gateway(lambda request: Reply([member], 200, packed), max_answer="8 MiB")
    with upstream:
        async with started as g:
            tracemalloc.start()
            assert await ask(g, stream=stream) == ERROR
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 40 * MIB


async def test_a_compressed_answer_within_the_limit_is_read():
    body = gzip.compress(json.dumps(completion(content="x" * MIB)).encode())
    packed = {**JSON, "content-encoding": "gzip"}
    upstream, started = gateway(lambda request: Reply([body], 200, packed), max_answer="2 MiB")
    with upstream:
        async with started as g:
            assert await ask(g) == ("x" * MIB, "stop", None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_is_not_followed(status, stream, caplog):
    with FakeUpstream() as other:
        location = f"{other.base_url}/chat/completions?key=SECRET"
        headers = {"location": location, "content-type": "text/plain"}
        upstream, started = gateway(lambda request: Reply([b""], status, headers), headers={"x-own": "HEADER"})
        with upstream:
            async with started as g:
                assert await ask(g, stream=stream) == ERROR
        assert [record for record in other.records if record.request.method == "POST"] == []
        log = caplog.text
        assert upstream.base_url.removesuffix("/v1") in log
        assert other.base_url.removesuffix("/v1") in log
        assert "SECRET" not in log


@pytest.mark.parametrize(
    ("status", "expected"), [(307, ("ok", "stop", None)), (308, ("ok", "stop", None)), (302, ERROR)]
)
async def test_a_redirect_within_the_origin_keeps_the_request_or_is_an_error(status, expected):
    def handler(request):
        if request.path.endswith("/moved"):
            return json_reply(completion(content="ok"))
        return Reply([b""], status, {"location": f"{request.path}/moved"})

    upstream, started = gateway(handler)
    with upstream:
        async with started as g:
            assert await ask(g) == expected


async def test_the_total_timeout_includes_a_header_that_never_ends():
    connections = set()

    async def drip(reader, writer):
        connections.add((asyncio.current_task(), writer))
        for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"a" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    upstream, started = gateway(None, base_url=address, total_timeout="1s", first_byte_timeout="1s", max_retries=2)
    with upstream:
        async with started as g:
            for stream in (False, True):
                began = time.monotonic()
                assert await ask(g, stream=stream) == (None, None, "upstream_timeout")
                assert time.monotonic() - began < 30
    server.close()
    for task, writer in connections:
        task.cancel()
        writer.transport.abort()
    await asyncio.sleep(0)
