"""Two servers with one state directory, and revocations that a running server did not make itself."""

import re
import signal
import sqlite3
import time

import openai
import pytest

from tests.acceptance.conftest import STOP_SECONDS, serving
from tests.acceptance.test_security import AGENT, GRANT, admin, ask, command, folder, make_key

__all__ = ["folder"]
WARNING = "uses the state directory"


def denied_within(server, key, model, seconds=30.0, error=openai.PermissionDeniedError) -> float:
    """Repeat a request until it is denied, and return the seconds."""
    began = time.monotonic()
    while True:
        try:
            ask(server, key, model)
        except error:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, "the request is still allowed"


def allowed(server, key, model) -> bool:
    try:
        return bool(ask(server, key, model))
    except openai.PermissionDeniedError:
        return False


@pytest.fixture
def granted(folder):
    """A server with an override, the admin's key, the key of the principal, and the path of the override."""
    root, alice = make_key(folder, "root", "--admin"), make_key(folder, "alice", "--agents", "Open")
    with serving(folder, "--offline") as server:
        override = admin(server, root, "POST", "/security/override", GRANT).json()["id"]
        assert allowed(server, alice, "labs/Research")
        yield server, root, alice, f"/security/override/{override}"


def test_a_second_server_warns_and_has_the_same_overrides(granted, folder):
    first, root, alice, override = granted
    assert WARNING not in first.text
    with serving(folder, "--offline") as second:
        assert f"another gateway (process {first.process.pid}) {WARNING}" in second.text
        assert allowed(second, alice, "labs/Research")
        assert admin(first, root, "DELETE", override).status_code == 200
        assert denied_within(second, alice, "labs/Research") < 2
        admin(second, root, "POST", "/security/override", GRANT)
        until = time.monotonic() + 30
        while not allowed(first, alice, "labs/Research"):
            assert time.monotonic() < until, "the override is not active in the first server"
        command(folder, "check")
        assert not [*(folder / ".agent-gateway").glob("audit-3*")]
        assert "ok: audit.jsonl" in command(folder, "audit", "verify")
        command(folder, "keys", "create", "third")
    events = re.findall(r'"event":"([\w.]+)"', (folder / ".agent-gateway" / "audit-2.jsonl").read_text())
    assert "agent.security.override.revoked" in events


@pytest.mark.parametrize("way", ["rows", "file"])
def test_overrides_are_revoked_in_the_file(granted, folder, way):
    server, _, alice, _ = granted
    file = folder / ".agent-gateway" / "overrides.db"
    if way == "file":
        for each in file.parent.glob("overrides.db*"):
            each.unlink()
    else:
        with sqlite3.connect(file) as database:
            database.execute("DELETE FROM overrides")
        database.close()
    assert denied_within(server, alice, "labs/Research") < 2


def test_a_key_is_revoked_while_an_agent_loads(granted, folder):
    server, _, alice, _ = granted
    (folder / "agents" / "Slow.py").write_text("import time\nprint('loads', flush=True)\ntime.sleep(60)\n" + AGENT)
    until = time.monotonic() + 60
    while "loads" not in server.text:
        assert time.monotonic() < until, "the agent does not load"
        time.sleep(0.02)
    file = folder / "gateway.toml"
    file.write_text(file.read_text().replace('agents = ["Open"]', 'agents = ["Open"]\ndisabled = true'))
    assert denied_within(server, alice, "Open", 25, openai.AuthenticationError) < 25


def test_a_key_is_revoked_without_file_system_events(folder):
    """However rarely the folders are scanned: the configuration is one file."""
    alice, file = make_key(folder, "alice", "--agents", "Open"), folder / "gateway.toml"
    file.write_text(file.read_text() + '\n[plugins.hot_reload]\nmode = "poll"\npoll_interval = "5m"\n')
    with serving(folder, "--offline") as server:
        assert ask(server, alice, "Open")
        file.write_text(file.read_text().replace('agents = ["Open"]', 'agents = ["Open"]\ndisabled = true'))
        assert denied_within(server, alice, "Open", 20, openai.AuthenticationError) < 10


def test_the_lock_of_a_killed_server_is_no_obstacle(folder):
    with serving(folder, "--offline") as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(STOP_SECONDS)
    with serving(folder, "--offline") as server:
        assert WARNING not in server.text
