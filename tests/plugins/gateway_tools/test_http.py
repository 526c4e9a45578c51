"""HTTP tools against a real server on loopback, and the addresses that tools cannot connect to."""

import asyncio
import ipaddress
import json
import socket
from contextlib import asynccontextmanager

import pytest
from agents import Agent

from gateway_core import hookimpl, use_gateway_tool
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.net.addresses import ForbiddenAddressError, may_connect, resolve
from gateway_core.testing import call, gateway_in_memory, script

LOOPBACK = ["127.0.0.0/8", "::1"]


@asynccontextmanager
async def server(*answers):
    """A real server that returns these responses in order (status, body, headers), and repeats the last one."""
    requests = []
    closing = asyncio.Event()

    async def serve(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                requests.append((lines[0].removesuffix(" HTTP/1.1"), headers, body))
                status, content, more = answers[min(len(requests), len(answers)) - 1]
                if status is None:
                    break
                if content is None:
                    await closing.wait()
                    break
                extra = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n{extra}\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1], requests
    finally:
        closing.set()
        running.close()


async def call_it(table, **arguments):
    """Return the output that the model reads, and the outcome of the call."""
    calls = []

    class Listener:
        def __init__(self, *_):
            pass

        @hookimpl
        def on_tool_end(self, call):
            calls.append(call)

    tables = {"api": {"kind": "http", "description": "Asks.", "private": LOOPBACK, **table}}
    model = script(call("api", **arguments), "done")
    agents = {"X": Agent(name="x", tools=[use_gateway_tool("api")])}
    config = {"plugins": {"gateway_tools": tables}}
    async with gateway_in_memory(agents, model=model, config=config, plugins={"l": Listener}) as g:
        await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
    return model.calls[-1].input[-1]["output"], calls[0].outcome


TEXT = {"type": "string"}


async def test_arguments_are_sent_in_path_and_query_and_headers_stay_secret():
    async with server((200, "18 °C".encode(), {})) as (port, requests):
        table = {
            "url": f"http://localhost:{port}/v1/{{city}}?unit={{unit}}",
            "parameters": {"city": TEXT, "unit": TEXT, "tags": {"type": "array", "items": TEXT}},
            "headers": {"x-api-key": "canary"},
        }
        answer = await call_it(table, city="São/Paulo?x#", unit="a&b=c", tags=["1", "2 3"])
    assert answer == ("18 °C", "ok")
    [(line, headers, body)] = requests
    assert line == "GET /v1/S%C3%A3o%2FPaulo%3Fx%23?unit=a%26b%3Dc&tags=1&tags=2+3"
    assert headers["host"] == f"localhost:{port}"
    assert headers["x-api-key"] == "canary"
    assert body == b""


async def test_a_method_with_a_body_sends_the_remaining_arguments_as_json():
    async with server((200, b'{"a": {"b": [1, "x"]}}', {})) as (port, requests):
        table = {
            "method": "POST",
            "url": f"http://127.0.0.1:{port}/{{id}}",
            "parameters": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "note": TEXT},
                "required": ["id"],
            },
            "result": "a.b[1]",
        }
        assert await call_it(table, id=7, note="é") == ("x", "ok")
    [(line, _, body)] = requests
    assert (line, json.loads(body)) == ("POST /7", {"note": "é"})


REDIRECT = "The tool's server returned a redirect, which is not followed."


@pytest.mark.parametrize(
    ("answers", "table", "read", "sent"),
    [
        ([(503, b"", {}), (200, b"ok", {})], {}, "ok", 2),
        ([(None, b"", {}), (200, b"ok", {})], {}, "ok", 2),
        ([(503, b"secret", {})], {}, "The tool's server returned status 503.", 3),
        ([(503, b"", {})], {"retries": 0}, "The tool's server returned status 503.", 1),
        ([(503, b"", {}), (200, b"ok", {})], {"method": "POST"}, "The tool's server returned status 503.", 1),
        ([(None, b"", {}), (200, b"ok", {})], {"method": "POST"}, "The tool's server is unreachable.", 1),
        ([(404, b"secret", {})], {}, "The tool's server returned status 404.", 1),
        ([(302, b"", {"location": "http://127.0.0.1/"})], {}, REDIRECT, 1),
        ([(200, b"x" * 101, {})], {"max_size": 100}, "The tool's server returned more than 100 bytes.", 1),
        ([(200, b"x" * 100, {})], {"max_size": 100}, "x" * 100, 1),
        ([(200, b"no json", {})], {"result": "a"}, "The tool's server returned an invalid response.", 1),
        ([(200, b"[]", {})], {"result": "length(a)"}, "The tool's server returned an invalid response.", 1),
        ([(200, b'{"a": {"b": 1}}', {})], {"result": "a"}, '{"b": 1}', 1),
        ([(200, b"{}", {})], {"result": "a"}, "null", 1),
        ([(200, None, {})], {"timeout": "200ms"}, "The tool's server did not respond within 0.2 seconds.", 1),
    ],
)  # fmt: skip
async def test_responses_are_converted_for_the_model(answers, table, read, sent, monkeypatch):
    monkeypatch.setattr("gateway_plugins.gateway_tools.http._FIRST_BACKOFF", 0.001)
    async with server(*answers) as (port, requests):
        answer, outcome = await call_it({"url": f"http://127.0.0.1:{port}/", **table})
    assert answer == read
    assert outcome == ("error" if read.startswith("The tool's server") else "ok")
    assert len(requests) == sent


async def test_an_unreachable_server():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        assert (await call_it({"url": url, "retries": 0}))[0] == "The tool's server is unreachable."


DOTS = "An argument in the URL path must not result in a '.' or '..' segment."


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ({}, "The argument city is missing."),
        ({"city": "x", "other": 1}, "Unknown argument other."),
        ({"city": ".."}, DOTS),
        ({"city": "."}, DOTS),
        ({"city": "../admin"}, DOTS),
        ({"city": "x/.."}, DOTS),
        ({"city": "..\\admin"}, DOTS),
        ({"city": ""}, "An argument in the URL path must not be empty."),
        ({"city": None}, "An argument in the URL is missing, or is not a string or a number."),
        ({"city": {"a": 1}}, "An argument in the URL is missing, or is not a string or a number."),
    ],
)
async def test_invalid_arguments_are_reported_and_not_sent(arguments, read):
    async with server((200, b"", {})) as (port, requests):
        table = {"url": f"http://127.0.0.1:{port}/{{city}}", "parameters": {"city": TEXT}}
        assert await call_it(table, **arguments) == (read, "error")
    assert not requests


@pytest.mark.parametrize(
    ("path", "one", "two", "line"),
    [
        ("a/{one}{two}", ".", ".", None),
        ("a/{one}.{two}", "", "", None),
        ("a/%2E{one}/{two}", ".", "x", None),
        ("a/{one}.{two}", "a", "b", "GET /a/a.b"),
        ("a/{one}/{two}", "..x", "...", "GET /a/..x/..."),
        ("a?one={one}&two={two}", ".", "", "GET /a?one=.&two="),
        ("a/b/?one={one}&two={two}", "", "..", "GET /a/b/?one=&two=.."),
        ("{one}?x={two}", "%2e%2e", "../..", "GET /%252e%252e?x=..%2F.."),
    ],
)
async def test_arguments_cannot_change_the_url_structure(path, one, two, line):
    async with server((200, b"ok", {})) as (port, requests):
        table = {"url": f"http://127.0.0.1:{port}/{path}", "parameters": {"one": TEXT, "two": TEXT}}
        _, outcome = await call_it(table, one=one, two=two)
    assert outcome == ("ok" if line else "error")
    assert [sent for sent, _, _ in requests] == ([line] if line else [])


async def test_cookies_are_not_kept_between_calls():
    async with server((200, b"ok", {"set-cookie": "session=anns; Path=/"})) as (port, requests):
        table = {"kind": "http", "description": "Asks.", "private": LOOPBACK, "url": f"http://127.0.0.1:{port}/"}
        model = script(call("api"), call("api"), "done")
        agents = {"X": Agent(name="x", tools=[use_gateway_tool("api")])}
        async with gateway_in_memory(agents, model=model, config={"plugins": {"gateway_tools": {"api": table}}}) as g:
            await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
    assert [headers.get("cookie") for _, headers, _ in requests] == [None, None]


FORBIDDEN = "The address of the tool's server is not allowed."


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"],
)
async def test_private_addresses_are_only_allowed_if_configured(host):
    connected = []

    async def accept(reader, writer):
        connected.append(1)
        writer.close()

    running = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = running.sockets[0].getsockname()[1]
    try:
        answer, outcome = await call_it({"url": f"https://{host}:{port}/", "private": []})
    finally:
        running.close()
    assert (answer, outcome) == (FORBIDDEN, "error")
    assert not connected


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
    ],
)
def test_public_addresses(address, public):
    assert may_connect(ipaddress.ip_address(address), []) is public
    assert not may_connect(ipaddress.ip_address(address), [], "http")
    assert may_connect(ipaddress.ip_address(address), [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])


async def test_a_name_with_a_private_address_is_rejected_and_names_are_resolved_once(monkeypatch):
    asked = []

    async def getaddrinfo(host, port, **_):
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(ForbiddenAddressError):
        await resolve("rebind.example", 443, "https", [])
    assert asked == ["rebind.example"]


async def test_the_connection_uses_the_checked_address(monkeypatch):
    """The host name resolves to another address at the second lookup."""
    loop = asyncio.get_running_loop()
    own, answers = loop.getaddrinfo, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    async def getaddrinfo(host, port, **options):
        if host == "rebind.example":
            return [(2, 1, 6, "", (answers.pop(0), port))]
        return await own(host, port, **options)

    async with server((200, b"checked", {})) as (port, requests):
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        table = {"url": f"http://rebind.example:{port}/", "private": ["127.0.0.1"]}
        assert await call_it(table) == ("checked", "ok")
    assert requests[0][1]["host"] == f"rebind.example:{port}"
    assert answers == ["127.0.0.2", "127.0.0.3"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"url": "ftp://x/"}, "invalid URL"),
        ({"url": "https://{host}/"}, "invalid URL"),
        ({"url": "https://user@x/"}, "invalid URL"),
        ({"url": "https://good.example\\@127.0.0.1/"}, "invalid URL"),
        ({"url": "https://x/{ctiy}", "parameters": {"city": TEXT}}, "did you mean 'city'?"),
        ({"url": "https://x/", "private": ["nowhere"]}, "10.0.0.0/8"),
        ({"url": "https://x/", "result": "a["}, "invalid JMESPath expression"),
        ({"url": "https://x/", "method": "FETCH"}, "one of: GET"),
    ],
)
def test_an_invalid_table_is_rejected(table, message):
    tables = {"api": {"kind": "http", "description": "d", **table}}
    with pytest.raises(ConfigError) as caught:
        load_plugins(load_config(environ={}, overrides={"plugins": {"gateway_tools": tables}}), NullGateway())
    assert message in str(caught.value)
    assert "[plugins.gateway_tools.api]" in str(caught.value)
