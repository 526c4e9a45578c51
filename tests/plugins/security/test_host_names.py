"""Names in the `Host` header: which are allowed by default, and the lines that allow a refused one."""

import logging
import tomllib
from pathlib import Path

import pytest
from gateway_plugins.security.host_names import ENVIRONMENT, AllowedHosts, RefusedHosts
from gateway_plugins.security.settings import Settings

from gateway_core import ConfigError
from gateway_core.app import build
from gateway_core.config.settings import load_config
from gateway_core.testing import gateway_in_memory
from tests.plugins.security.support import key_table

PRIVATE = [
    "host.docker.internal:8000",
    "HOST.docker.internal",
    "host.containers.internal:8000",
    "gateway:8000",
    "my_gateway:8000",
    "laptop.local:8000",
    "agents.default.svc.cluster.local",
]
PUBLIC = ["evil.example", "docker.internal.evil.example", "local.example:8000", "evilinternal.example", "a.internal.b"]


def keys(**more):
    return {"plugins": {"security": {"keys": {"alice": key_table()}, **more}}}


@pytest.mark.parametrize("host", PRIVATE)
async def test_with_keys_names_of_private_networks_are_allowed(host):
    async with gateway_in_memory(config=keys()) as g:
        assert (await g.http.get("/healthz", headers={"host": host})).status_code == 200
    async with gateway_in_memory() as g:
        assert (await g.http.get("/healthz", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("host", PUBLIC)
async def test_with_keys_other_names_are_refused(host):
    async with gateway_in_memory(config=keys()) as g:
        assert (await g.http.get("/healthz", headers={"host": host})).status_code == 421


@pytest.mark.parametrize(
    "entry", ["https://agents.example", "agents.example/v1", "*.example", "", "a b", "a?b", "münchen.example"]
)
async def test_an_entry_that_is_not_a_host_name_is_an_error(entry):
    with pytest.raises(ConfigError, match=r"allowed_hosts: not a host name: .*write the name alone"):
        async with gateway_in_memory(config=keys(allowed_hosts=["ok.example", entry])):
            pass


@pytest.mark.parametrize("entry", ["Agents.example", "agents.example.", "agents.example:8443", "*"])
def test_entries_are_compared_without_case_and_final_dot(entry):
    assert AllowedHosts([entry], private=False).allows("agents.EXAMPLE:8443")


async def test_the_response_names_the_refused_host_and_the_setting_and_nothing_else():
    async with gateway_in_memory(config=keys(allowed_hosts=["other.example"])) as g:
        answer = await g.http.get("/v1/models", headers={"host": "Agents.example:8000"})
        message = answer.json()["error"]["message"]
        assert "'agents.example'" in message
        assert "[plugins.security]" in message
        assert "allowed_hosts = ['agents.example']" in message
        assert "other.example" not in answer.text
        malformed = await g.http.get("/v1/models", headers={"host": "a b"})
        assert malformed.json()["error"]["message"].startswith("the Host header is malformed")


FILES = [
    None,
    "",
    "[server]\nport = 8000",
    "[plugins.security.keys.alice]\nid = 'a'\nhash = 'b'\n",
    "[plugins.security]\nadmin_keys_may_chat = true\n",
    "[plugins.security]\nallowed_hosts = ['other.example']\n\n[server]\nport = 8000\n",
    "plugins.security.admin_keys_may_chat = true\n",
]


@pytest.mark.parametrize("text", FILES)
def test_the_logged_lines_allow_the_host(tmp_path, caplog, text):
    file = tmp_path / "gateway.toml"
    if text is not None:
        file.write_text(text)
    listed = load_config(file if text is not None else None, environ={}).tables["plugins"]["security"]["allowed_hosts"]
    RefusedHosts(file).report("Agents.example:80", AllowedHosts(listed, private=True))
    [record] = caplog.records
    fields = record.fields
    assert "agents.example" in record.getMessage()
    assert fields["line"] in record.getMessage()
    assert str(file) in record.getMessage()
    assert (record.levelno, fields["host"]) == (logging.WARNING, "agents.example")
    if fields["allow"].startswith("add both lines to"):
        file.write_text(f"{text or ''}\n{fields['table']}\n{fields['line']}\n")
    else:
        assert fields["allow"] == f"set the line in the table that {file} has"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("allowed_hosts")]
        if fields["table"] in lines:
            lines.insert(lines.index(fields["table"]) + 1, fields["line"])
        else:
            lines.insert(0, f"plugins.security.{fields['line']}")
        file.write_text("\n".join(lines))
    changed = tomllib.loads(file.read_text())["plugins"]["security"]["allowed_hosts"]
    assert changed == [*listed, "agents.example"]


def test_a_list_in_the_environment_is_extended_there(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "other.example")
    RefusedHosts(tmp_path / "gateway.toml").report("agents.example", AllowedHosts(["other.example"], private=True))
    [record] = caplog.records
    assert record.fields["set"] in record.getMessage()
    name, _, value = record.fields["set"].partition("=")
    config = load_config(environ={name: value})
    settings = config.structure(config.plugins["security"], Settings, "plugins", "security")
    assert settings.allowed_hosts == ["other.example", "agents.example"]


def test_a_refused_host_is_logged_once_per_minute_and_the_number_is_limited(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("gateway_plugins.security.host_names.time.monotonic", lambda: now[0])
    refused, allowed = RefusedHosts(Path("/nowhere/gateway.toml")), AllowedHosts([], private=False)
    for _ in range(3):
        refused.report("a.example", allowed)
    assert len(caplog.records) == 1
    now[0] = 61.0
    for number in range(200):
        refused.report(f"a{number}.example", allowed)
    refused.report("a.example", allowed)
    assert len(caplog.records) == 101
    refused.report("a b\nINFO forged", allowed)
    assert len(caplog.records) == 101


@pytest.mark.parametrize(("extensions", "status"), [({"websocket.http.response": {}}, 421), ({}, None)])
async def test_a_web_socket_with_a_refused_host_is_closed(extensions, status):
    sent = []
    scope = {
        "type": "websocket",
        "path": "/v1/responses",
        "raw_path": b"/v1/responses",
        "query_string": b"",
        "headers": [(b"host", b"evil.example")],
        "extensions": extensions,
        "subprotocols": [],
    }

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    await build(load_config(environ={}))(scope, receive, send)
    assert sent[0]["type"] == ("websocket.http.response.start" if status else "websocket.close")
    assert sent[0].get("status") == status
