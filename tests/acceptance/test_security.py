"""Keys, rules, overrides and the audit log of the real command, across SIGKILL and a restart."""

import json
import re
import signal
import socket
import subprocess

import httpx2
import openai
import pytest

from tests.acceptance.conftest import COMMAND, serving

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
    assert "agent-gateway keys create NAME" in output
    assert "Traceback" not in output


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
        server.process.wait(10)
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
