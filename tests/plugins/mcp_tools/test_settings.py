"""Settings, tool names, result limits and credentials."""

import base64
import json
import re
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import httpx2
import pytest
from agents import Agent
from gateway_plugins.mcp_tools.credentials import ClientCredentials, TokenFile
from gateway_plugins.mcp_tools.results import as_output
from gateway_plugins.mcp_tools.settings import McpServer, OAuth
from gateway_plugins.mcp_tools.tools import names
from gateway_plugins.mcp_tools.transports import identity_headers
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, ImageContent, TextContent

from gateway_core import use_gateway_tool
from gateway_core.config.settings import load_config
from gateway_core.config.values import Secret
from gateway_core.errors import ConfigError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.mcp_server import running

URL = {"kind": "http", "url": "https://mcp.example/mcp"}
STDIO = {"kind": "stdio", "command": ["server"]}
OAUTH = {"token_url": "https://auth.example/token", "client_id": "me", "client_secret": "secret"}


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("x", {}, "kind: required key is missing"),
        ("x", {"kind": "htpp"}, "one of: http, sse, stdio, mcp-gateway"),
        ("x", {"kind": "http"}, "[plugins.mcp_tools.x] url: invalid URL: None"),
        ("x", {"kind": "http", "url": "mcp.example"}, "invalid URL: 'mcp.example'"),
        ("x", {"kind": "http", "url": "https://me:secret@mcp.example"}, "url: invalid URL"),
        ("x", {**URL, "command": ["rm"]}, 'command: requires kind = "stdio"'),
        ("x", {**URL, "env": {"A": "b"}}, 'env: requires kind = "stdio"'),
        ("x", {"kind": "stdio"}, "command: is required for kind"),
        ("x", {"kind": "stdio", "command": "server --flag"}, "must be a list"),
        ("x", {**STDIO, "url": "https://a.b"}, "url: not supported for kind"),
        ("x", {**STDIO, "identity": "principal"}, "is not supported for kind"),
        ("x", {**URL, "token": "a", "oauth": OAUTH}, "token: more than one credential is configured"),
        (
            "x",
            {**URL, "headers": {"Mcp-Session-Id": "a"}},
            "headers: invalid or reserved header name: 'Mcp-Session-Id'",
        ),
        ("x", {**URL, "headers": {"a b": "a"}}, "invalid or reserved header name: 'a b'"),
        (
            "x",
            {**URL, "forward_headers": ["Authorization"]},
            "forward_headers: credentials cannot be forwarded in",
        ),
        (
            "x",
            {**URL, "identity_headers": {"x-user": "{principal}"}},
            "identity_headers: {principal} cannot be used in",
        ),
        ("x", {**URL, "timout": 1}, "did you mean 'timeout'?"),
        ("x", {**URL, "oauth": {"client_id": "me"}}, "token_url: required key is missing"),
        ("a__b", URL, "[plugins.mcp_tools.a__b]: invalid server name"),
        ("a/b", URL, "invalid server name"),
        ("a" * 25, URL, "invalid server name"),
    ],
)
def test_an_invalid_table_is_reported_with_its_location(name, table, message):
    with pytest.raises(ConfigError) as caught:
        load(load_config(environ={}, overrides={"plugins": {"mcp_tools": {name: table}}}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {**URL, "identity": "principal", "identity_headers": {"x-user": "{principal}"}},
        {**URL, "identity": "principal", "forward_headers": ["authorization"]},
        {**URL, "forward_headers": ["x-tenant"], "identity_headers": {"x-user": "all"}},
        {**URL, "oauth": OAUTH},
        {**STDIO, "env": {"TOKEN": "secret"}, "stderr": "log"},
    ],
)
def test_a_valid_table_is_accepted(table):
    load(load_config(environ={}, overrides={"plugins": {"mcp_tools": {"x": table}}}))


def load(config):
    load_plugins(config, NullGateway(config))


def test_the_deployment_example_is_valid():
    config = load_config(Path(__file__).parents[3] / "deploy" / "gateway.toml", environ={})
    load(config)
    assert config.agent("Assistant").tools == ["time/*"]


def test_the_tables_on_the_documentation_page_are_valid(monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "plugins" / "mcp_tools.md").read_text()
    tables = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(tables) == 3
    for name in ("GITHUB_MCP_TOKEN", "CORP_SECRET"):
        monkeypatch.setenv(name, "secret")
    for table in tables:
        load(load_config(environ={}, overrides=tomllib.loads(table)))


def test_only_invalid_characters_in_names_are_replaced():
    assert names("s", ["add", "fs.read", "a b"]) == {"add": "s__add", "fs.read": "s__fs_read", "a b": "s__a_b"}


def test_a_tool_cannot_take_the_name_of_another_tool():
    named = names("s", ["fs.read", "fs_read"])
    assert named["fs_read"] == "s__fs_read"
    assert named["fs.read"].startswith("s__fs_read_")


@given(st.lists(st.text(min_size=1, max_size=80), unique=True))
def test_every_tool_has_a_valid_unique_name(tools):
    named = names("server", tools)
    assert set(named) == set(tools)
    assert len(set(named.values())) == len(tools)
    assert all(re.fullmatch(r"server__[A-Za-z0-9_-]+", name) and len(name) <= 64 for name in named.values())


@given(st.text(), st.text())
def test_identity_headers_are_unique_per_principal(one, other):
    settings = McpServer("http", "http://localhost", identity="principal", identity_headers={"x-user": "{principal}"})
    first, second = (identity_headers(settings, principal)["x-user"] for principal in (one, other))
    assert first.isascii()
    assert first.isprintable()
    assert (first == second) is (one == other)


def test_identity_headers_keep_common_characters_of_a_principal():
    settings = McpServer(
        "http", "http://localhost", identity="principal", identity_headers={"x-user": "id {principal}"}
    )
    assert identity_headers(settings, "ada@example.com")["x-user"] == "id ada@example.com"
    assert identity_headers(settings, None)["x-user"] == "id agent-gateway"


@given(st.text(), st.integers(0, 50))
def test_a_cut_result_is_within_the_limit_and_valid_text(text, room):
    output = as_output(CallToolResult(content=[TextContent(type="text", text=text)]), room)
    size = len(text.encode(errors="replace"))
    if size <= room:
        assert output == text
    else:
        kept, _, note = output.rpartition("\n[cut off: ")
        assert len(kept.encode(errors="replace")) <= room
        assert note == f"{size - room:,} of {size:,} bytes]"


def test_an_image_that_does_not_fit_is_omitted():
    image = ImageContent(type="image", data="A" * 1000, mime_type="image/png")
    text = TextContent(type="text", text="after")
    output = as_output(CallToolResult(content=[image, text]), 500)
    assert output == "[image of 1,022 bytes omitted: the result is too large]\nafter"


class AuthorizationServer:
    """Returns a new token for each request with the secret."""

    def __init__(self):
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                outer.requests.append((self.headers["authorization"], body))
                answer = {"access_token": f"token-{len(outer.requests)}", "token_type": "Bearer", "expires_in": 3600}
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


async def test_client_credentials_are_exchanged_for_one_token_for_all_calls():
    model = script([call("s__headers"), call("s__headers")], "done")
    with AuthorizationServer() as issuer, running() as (_, port):
        oauth = {"token_url": issuer.url, "client_id": "me", "client_secret": "a secret", "scope": "tools"}
        table = {"kind": "http", "url": f"http://127.0.0.1:{port}/mcp", "oauth": oauth}
        agent = Agent(name="caller", tools=[use_gateway_tool("s/headers")])
        async with gateway_in_memory(
            {"C": agent}, model=model, config={"plugins": {"mcp_tools": {"start_timeout": 25, "s": table}}}
        ) as g:
            await g.openai.chat.completions.create(model="C", messages=[{"role": "user", "content": "go"}])
    outputs = [item["output"] for item in model.calls[1].input if item.get("type") == "function_call_output"]
    assert outputs == ["{'authorization': 'Bearer token-1'}"] * 2
    [(basic, body)] = issuer.requests
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"me:a+secret"
    assert body == {"grant_type": ["client_credentials"], "scope": ["tools"]}


async def test_a_rejected_token_is_replaced_once():
    seen = []

    def answer(request):
        seen.append(request.headers["authorization"])
        return httpx2.Response(401 if len(seen) < 4 else 200)

    with AuthorizationServer() as issuer:
        auth = ClientCredentials(OAuth(issuer.url, "me", Secret("secret")))
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), auth=auth) as client:
            first = await client.get("https://mcp.example")
            second = await client.get("https://mcp.example")
    assert (first.status_code, second.status_code) == (401, 200)
    assert seen == ["Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-3"]


async def test_a_token_file_is_read_again_when_it_changes(tmp_path):
    file = tmp_path / "token"
    transport = httpx2.MockTransport(lambda r: httpx2.Response(200, text=r.headers.get("authorization", "none")))
    async with httpx2.AsyncClient(transport=transport, auth=TokenFile(file)) as client:
        assert (await client.get("https://mcp.example")).text == "none"
        file.write_text("first\n")
        assert (await client.get("https://mcp.example")).text == "Bearer first"
        file.write_text("the second\n")
        assert (await client.get("https://mcp.example")).text == "Bearer the second"
