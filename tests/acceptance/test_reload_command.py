"""`agent-gateway reload` and the running server; installed packages, which the server notices."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.acceptance.conftest import COMMAND, serving

AGENT = "import package_of_test\nfrom agents import Agent\nagent = Agent(name='x')\n"
SECONDS = 30


def run(folder, *arguments, environment=None, status=0):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEWAY_", "AGENT_GATEWAY_"))}
    done = subprocess.run(
        [str(COMMAND), *arguments],
        cwd=folder,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path):
    """A folder with the agent `Needs`, which lacks a package, and an empty folder of packages."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Needs.py").write_text(AGENT)
    (tmp_path / "site-packages").mkdir()
    return tmp_path


def serving_with_packages(folder, **environment):
    return serving(folder, "--offline", environment={"PYTHONPATH": str(folder / "site-packages"), **environment})


def install(folder):
    (folder / "site-packages" / "package_of_test.py").write_text("x = 1\n")


def models(server):
    return [model.id for model in server.client().models.list()]


SETTINGS = "[plugins.requirements]\nretry = false\n[plugins.hot_reload]\nenabled = false\n"


def test_the_running_server_is_reloaded_on_whichever_port_it_listens(folder):
    (folder / "gateway.toml").write_text(SETTINGS)
    with serving_with_packages(folder) as server:
        assert "agent-gateway reload" in server.text
        output = run(folder, "reload", status=1)
        assert "1 with errors" in output
        assert "Needs.py:1: the module 'package_of_test' is not installed" in output
        install(folder)
        assert "0 with errors" in run(folder, "reload")
        assert "Needs" in models(server)
        assert "0 with errors" in run(folder, "reload", "--url", server.url)
    assert "no running gateway at http://127.0.0.1:" in run(folder, "reload", status=1)


def test_a_server_with_keys_is_reloaded_by_its_key_or_by_the_user_of_its_process(folder):
    printed = run(folder, "keys", "create", "root", "--admin")
    key = re.search(r"agw_\w{8}_[\w-]{43}", printed)[0]
    (folder / "gateway.toml").write_text(f"{SETTINGS}{printed[printed.index('[plugins.') :]}\n")
    with serving_with_packages(folder) as server:
        install(folder)
        assert f"The gateway (process {server.process.pid}) reloads" in run(folder, "reload")
        assert "0 with errors" in run(folder, "reload", environment={"AGENT_GATEWAY_KEY": key})
        assert "SIGHUP: reloading" in server.text
        assert "requires an admin key" in run(folder, "reload", "--key", "another-key-0123456789", status=1)
        assert "requires an admin key" in run(folder, "reload", "--url", server.url, status=1)


def test_the_file_of_a_server_that_was_killed_names_no_running_one(folder):
    (folder / "gateway.toml").write_text("[server]\nport = 9\n")
    with serving_with_packages(folder) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert "no running gateway at http://127.0.0.1:9" in run(folder, "reload", status=1)


def test_the_server_notices_an_installed_package(folder):
    (folder / "gateway.toml").write_text("[plugins.hot_reload]\nenabled = false\n")
    with serving_with_packages(folder) as server:
        assert "Needs" not in models(server)
        install(folder)
        until = time.monotonic() + SECONDS
        while "Needs" not in models(server):
            assert time.monotonic() < until, server.text
            time.sleep(0.2)
        assert "packages were installed; reloading" in server.text
