"""Keys, rules, overrides and the audit log of the real command, across SIGKILL and a restart."""

import json
import re
import signal
import socket
import subprocess
import time

import httpx2
import openai
import pytest

from tests.acceptance.conftest import COMMAND, STOP_SECONDS, serving

AGENT = "from agents import Agent\nagent = Agent(name='x')\n"
GRANT = {"kind": "agent", "pattern": "labs/Research", "principal": "alice", "reason": "demo", "ttl_seconds": 600}


def command(folder, *arguments, status=0) -> str:
    done = subprocess.run([str(COMMAND), *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def make_key(folder, *arguments) -> str:
    """Create a key as an operator does, and add its lines to the configuration."""
    printed = command(folder, "keys", "create", *arguments)
    with (folder / "gateway.toml").open("a") as file:
        file.write(printed[printed.index("[plugins.") :] + "\n")
    return re.search(r"agw_\w{8}_[\w-]{43}", printed)[0]


@pytest.fixture
def folder(tmp_path):
    for name in ("Open", "labs/Research"):
        path = tmp_path / "agents" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(AGENT)
    (tmp_path / "gateway.toml").write_text("[plugins.entry_point_discovery]\nenabled = false\n")
    return tmp_path


def ask(server, key, model):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=20) as client:
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])


def admin(server, key, method, path, body=None):
    return httpx2.request(method, server.url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=20)


def test_without_keys_the_gateway_does_not_listen_on_other_addresses(folder):
    output = command(folder, "serve", "--offline", "--port", "0", "--host", "0.0.0.0", status=78)
    assert "`agent-gateway serve --offline --port 0 --host 0.0.0.0 --create-key`" in output
    assert "agent-gateway keys create NAME" in output
    assert "Traceback" not in output
    assert "keys" not in (folder / "gateway.toml").read_text()


def test_the_first_key_is_created_once(folder):
    with serving(folder, "--offline", "--host", "0.0.0.0", "--create-key") as server:
        [key] = re.findall(r"^    (agw_\S+)$", server.text, re.MULTILINE)
        assert ask(server, key, "labs/Research").choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            ask(server, "agw_00000000_wrong", "Open")
        [addresses] = re.findall(r"^  addresses  (.*)$", server.text, re.MULTILINE)
        assert f"http://{socket.gethostname()}:{server.port}/v1" in addresses
        assert f"http://host.docker.internal:{server.port}/v1" in server.text
        assert "names without a dot, *.internal, *.local" in server.text
    text = (folder / "gateway.toml").read_text()
    assert key not in text
    with serving(folder, "--offline", "--create-key") as server:
        assert ask(server, key, "Open").choices[0].message.content
        assert "not shown again" not in server.text
        assert "  addresses  " not in server.text
    assert (folder / "gateway.toml").read_text() == text


def test_without_a_plugin_that_creates_keys_the_option_is_an_error(folder):
    with (folder / "gateway.toml").open("a") as file:
        file.write("[plugins.security]\nenabled = false\n")
    output = command(folder, "serve", "--offline", "--port", "0", "--create-key", status=78)
    assert "no plugin that is enabled creates keys" in output


def test_the_logged_lines_allow_a_refused_host(folder):
    def get(server, host):
        return httpx2.get(
            f"{server.url}/v1/models", headers={"host": host, "authorization": f"Bearer {key}"}, timeout=20
        )

    key = make_key(folder, "alice")
    for expected in (["agents.example"], ["agents.example", "second.example"]):
        host = expected[-1]
        with serving(folder, "--offline") as server:
            refused = get(server, f"{host}:8000")
            assert refused.status_code == 421
            assert f"allowed_hosts = ['{host}']" in refused.json()["error"]["message"]
            record = wait_for_record(server, f"refused a request: the host name {host} is not allowed")
            text = (folder / "gateway.toml").read_text()
            if record["allow"].startswith("add both lines"):
                text += f"{record['table']}\n{record['line']}\n"
            else:
                text = re.sub(r"^allowed_hosts = .*", record["line"], text, flags=re.MULTILINE)
            (folder / "gateway.toml").write_text(text)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: get(server, host).status_code == 200)  # noqa: B023
            assert get(server, expected[0]).status_code == 200
            assert get(server, "evil.example").status_code == 421


def wait_until(condition):
    """Wait until a condition holds, and return its value."""
    until = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return value


def wait_for_record(server, message) -> dict:
    """Wait until the server has logged a message that starts with this text, and return the record."""

    def found():
        records = [json.loads(line) for line in server.text.splitlines() if line.startswith("{")]
        return next((record for record in records if record["message"].startswith(message)), None)

    return wait_until(found)


def test_a_web_socket_with_a_refused_host_is_rejected_without_a_traceback(folder):
    with serving(folder, "--offline") as server, socket.create_connection(("127.0.0.1", server.port), 10) as rebound:
        rebound.sendall(
            b"GET /v1/responses HTTP/1.1\r\nhost: evil.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: SGVsbG8sIHdvcmxkIQ==\r\n\r\n"
        )
        with rebound.makefile("rb") as stream:
            assert stream.readline().startswith(b"HTTP/1.1 421")
        wait_for_record(server, "refused a request: the host name evil.example is not allowed")
    assert "Traceback" not in server.text
    assert '"level":"error"' not in server.text


def test_keys_rules_and_an_override_that_survives_sigkill(folder):
    root, alice = make_key(folder, "root", "--admin"), make_key(folder, "alice", "--agents", "Open")
    with serving(folder, "--offline", "--host", "0.0.0.0") as server:
        assert "your API key" in server.text
        assert ask(server, alice, "Open").choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            ask(server, "agw_00000000_wrong", "Open")
        with pytest.raises(openai.PermissionDeniedError):
            ask(server, alice, "labs/Research")
        assert admin(server, alice, "GET", "/admin/agents").status_code == 403
        preview = admin(server, root, "POST", "/security/preview", {"principal": "alice", "agent": "labs/Research"})
        assert (preview.json()["allowed"], preview.json()["source"]) == (False, "key")
        granted = admin(server, root, "POST", "/security/override", GRANT)
        assert granted.status_code == 201
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(STOP_SECONDS)
        output = server.text
    with serving(folder, "--offline", "--host", "0.0.0.0") as server:
        assert ask(server, alice, "labs/Research").choices[0].message.content
        path = f"/security/override/{granted.json()['id']}"
        assert admin(server, root, "DELETE", path).status_code == 200
        with pytest.raises(openai.PermissionDeniedError):
            ask(server, alice, "labs/Research")
        output += server.text
    for key in (root, alice):
        assert key[13:] not in output + (folder / ".agent-gateway" / "audit.jsonl").read_text()
    assert command(folder, "audit", "verify").startswith("ok: audit.jsonl")
    lines = (folder / ".agent-gateway" / "audit.jsonl").read_text().splitlines()
    decided = [json.loads(line) for line in lines]
    assert {"agent.security.override.created", "agent.security.override.revoked"} <= {one["event"] for one in decided}
    (folder / ".agent-gateway" / "audit.jsonl").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    assert "record 2 is missing" in command(folder, "audit", "verify", status=1)


def test_cross_origin_and_rebinding_requests_are_rejected(folder):
    with serving(folder, "--offline") as server, socket.create_connection(("127.0.0.1", server.port), 10) as rebound:
        rebound.sendall(b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n")
        assert rebound.recv(12) == b"HTTP/1.1 421"
        foreign = {"origin": "https://evil.example"}
        answer = httpx2.post(f"{server.url}/admin/reload", json={}, headers=foreign, timeout=20)
        assert answer.status_code == 403
