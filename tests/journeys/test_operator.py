"""The operator: a gateway that a container and nginx reach, its keys, rules, limits and audit log, and its shutdown.

The commands are those of the pages. The host and the container are network namespaces, so the addresses and ports are
those of the pages, too.
"""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.journeys import hosts
from tests.journeys.terminal import Page, Terminal, step

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

RUNBOOK = Page("docs/guides/OperatorRunbook.md")
DOCKER = Page("docs/guides/open-webui-docker.md")
PROXY = Page("docs/guides/reverse-proxy.md")
METRICS = Page("docs/plugins/metrics.md")

READY = "Press Ctrl"
URL = "http://host.docker.internal:8000/v1"


@pytest.fixture
def places(tmp_path):
    if not hosts.available():
        pytest.skip(hosts.MISSING)
    with hosts.host_and_container("host.docker.internal", "agents.example") as (host, container):
        yield tmp_path, host, container


def new_key(output: str) -> str:
    """The key that a command printed."""
    return re.search(r"^    (agw_\S+)\r?$", output, re.MULTILINE)[1]


def python_example(key: str, message: str) -> str:
    """The example of the page for the official client, as a program, with the URL and the key of this gateway."""
    text = Page("docs/clients.md").block("from openai import OpenAI", "python")
    text = text.replace("http://127.0.0.1:8000/v1", URL).replace('api_key="any"', f'api_key="{key}"')
    return text.replace("Hello", message) + "print(answer.choices[0].message.content)\n"


def test_operator(places):
    folder, on_host, in_container = places
    with (
        Terminal(folder, within=on_host) as server,
        Terminal(folder, within=on_host, columns=100) as shell,
        Terminal(folder, within=in_container) as container,
    ):
        key = first_key(folder, server, container)
        rotated = keys_and_overrides(server, shell)
        refused_host(folder, server, shell, container, key)
        rules_limits_and_metrics(folder, server, shell)
        revoked_key(folder, server, container, key)
        drain(server, container, rotated)


def first_key(folder: Path, server: Terminal, container: Terminal) -> str:
    start = DOCKER.command("serve --host 0.0.0.0")
    assert start == RUNBOOK.command("serve --host 0.0.0.0")
    with step("refuse to start without a key"):
        server.start(start.removesuffix(" --create-key"))
        server.expect(r"no key is configured. Create a first key\? \[y/N\]: ")
        server.start("n")
        status, output = server.end()
        assert (status, (folder / "gateway.toml").exists()) == (78, False)
        assert f"`{start}`" in output
    with step("serve --create-key, to ready"):
        server.start(start)
        key = server.expect(r"^    (agw_\S+)\r$")[1]
        server.expect(rf"http://{hosts.BRIDGE}:8000/v1")
        server.expect(rf"{URL}.*--add-host=host.docker.internal:host-gateway")
        server.expect(READY)
    with step("the official client in the container"):
        (folder / "example.py").write_text(python_example(key, "What is the weather in Paris?"))
        assert "Paris" in container.run(f"{sys.executable} example.py")
        (folder / "example.py").write_text(python_example("agw_00000000_wrong", "Hello"))
        assert "AuthenticationError" in container.run(f"{sys.executable} example.py", status=1)
    with step("restart, without another key"):
        server.interrupt()
        assert server.end()[0] == 0
        server.start(start)
        server.expect(READY)
    return key


def keys_and_overrides(server: Terminal, shell: Terminal) -> str:
    with step("keys for an admin and a user"):
        shell.run("agent-gateway new labs/Research")
        root = new_key(shell.run(RUNBOOK.command("keys create root")))
        alice = new_key(shell.run(RUNBOOK.command("keys create alice ")))
        shell.run(f"export ROOT={root} ALICE={alice} ADMIN_KEY={root}")
        reload(server)
    ask = (
        'curl -s localhost:8000/v1/chat/completions -H "authorization: Bearer $ALICE" '
        '-H \'content-type: application/json\' -d \'{"model": "labs/Research", "messages": [{"role": "user", '
        '"content": "hi"}]}\' -o /dev/null -w \'%{http_code}\\n\''
    )
    with step("explain a denied request, and override it"):
        assert shell.run(ask).strip() == "403"
        preview = shell.run(RUNBOOK.command("security/preview"))
        assert '"reason":"not in this key\'s allow list"' in preview
        granted = shell.run(RUNBOOK.command('"ttl_seconds": 3600'))
        override = re.search(r"ovr_[0-9a-f]{16}", granted)[0]
        assert override in shell.run(next(c for c in RUNBOOK.commands("security/override -H") if "-d" not in c))
        assert shell.run(ask).strip() == "200"
        revoke = re.sub(r"ovr_[0-9a-f]{16}", override, RUNBOOK.command("-X DELETE"))
        assert '"deleted":true' in shell.run(revoke)
        assert shell.run(ask).strip() == "403"
    with step("audit log and audit"):
        assert shell.run(RUNBOOK.command("audit verify")).startswith("ok: audit.jsonl")
        assert '"subject":"labs/Research"' in shell.run(RUNBOOK.command('grep \'"principal":"alice"\''))
        shell.start(RUNBOOK.command("audit --offline"))
        status, output = shell.end()
        assert (status, "key_no_expiry" in output) == (20, True), output
    with step("rotate a key"):
        rotated = new_key(shell.run(RUNBOOK.command("keys create alice2")))
        assert '"generation"' in shell.run(RUNBOOK.command("admin/reload"))
        for each in (alice, rotated):
            models = shell.run(f"curl -s localhost:8000/v1/models -H 'authorization: Bearer {each}'")
            assert "SampleAgent" in models
    return rotated


def refused_host(folder: Path, server: Terminal, shell: Terminal, container: Terminal, key: str) -> None:
    if NGINX is None:
        print("nginx is not installed; the steps with a reverse proxy are skipped")
        return
    models = f"curl -s http://agents.example/v1/models -H 'authorization: Bearer {key}'"
    try:
        with step("nginx, and a refused host name"):
            (folder / "nginx.conf").write_text(
                f"user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{}}\n"
                f"http {{ access_log off;\n{PROXY.block('server_name', 'nginx')}\n}}\n"
            )
            shell.run(f"{NGINX} -t -c {folder}/nginx.conf 2>&1")
            shell.run(f"{NGINX} -c {folder}/nginx.conf")
            assert "the host name 'agents.example' is not allowed" in container.run(models)
        with step("the lines of the log allow it"):
            cure = r"host name agents\.example is not allowed \(add the lines `([^`]*)` and `([^`]*)` to (\S+), then"
            table, line, file = server.expect(cure).groups()
            assert line.replace("'", '"') in PROXY.block("allowed_hosts", "toml")
            shell.run(f'printf \'\\n%s\\n%s\\n\' "{table}" "{line}" >> {file}')
            reload(server)
            assert "SampleAgent" in container.run(models)
        with step("a stream through nginx"):
            stream = container.run(
                f"curl -sN http://agents.example/v1/chat/completions -H 'authorization: Bearer {key}' "
                '-H \'content-type: application/json\' -d \'{"model": "SampleAgent", "stream": true, '
                '"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}\''
            )
            assert stream.count("data: ") > 5
            assert stream.rstrip().endswith("data: [DONE]")
    finally:
        os.kill(int((folder / "nginx.pid").read_text()), signal.SIGTERM)


def rules_limits_and_metrics(folder: Path, server: Terminal, shell: Terminal) -> None:
    with step("rules and limits"):
        tables = RUNBOOK.block("[plugins.security.limits]", "toml").replace("= 60 ", "= 2 ")
        with (folder / "gateway.toml").open("a") as file:
            file.write(f"\n{tables}")
        assert "requests_per_minute = 2" in shell.run("agent-gateway config")
        server.interrupt()
        assert server.end()[0] == 0
        server.start(DOCKER.command("serve --host 0.0.0.0"))
        server.expect(READY)
        ask = (
            'curl -s localhost:8000/v1/chat/completions -H "authorization: Bearer $ALICE" -H \'content-type: '
            'application/json\' -d \'{"model": "SampleAgent", "messages": [{"role": "user", "content": '
            "\"hi\"}]}' -o /dev/null -w '%{http_code}\\n'"
        )
        assert [shell.run(ask).strip() for _ in range(3)] == ["200", "200", "429"]
    with step("metrics"):
        scraped = shell.run(METRICS.command("/metrics"))
        assert re.search(r'^agent_gateway_runs_total\{agent="SampleAgent",outcome="ok"\} 2\.0', scraped, re.MULTILINE)
        assert re.search(r"^agent_gateway_security_keys", scraped, re.MULTILINE)


def revoked_key(folder: Path, server: Terminal, container: Terminal, key: str) -> None:
    with step("revoke a key"):
        text = (folder / "gateway.toml").read_text()
        table = "[plugins.security.keys.first]\n"
        (folder / "gateway.toml").write_text(text.replace(table, f"{table}disabled = true\n"))
        reload(server)
        models = f"curl -s {URL}/models -H 'authorization: Bearer {key}'"
        assert "the API key is not valid" in container.run(models)


def drain(server: Terminal, container: Terminal, key: str) -> None:
    with step("drain on SIGTERM"):
        container.start(
            f"curl -sN {URL}/chat/completions -H 'authorization: Bearer {key}' -H 'content-type: application/json' "
            '-d \'{"model": "SampleAgent", "stream": true, "messages": [{"role": "user", '
            '"content": "' + "word " * 60 + "\"}]}'"
        )
        container.expect("data: ")
        server.signal(signal.SIGTERM)
        status, stream = container.end()
        assert (status, stream.rstrip().endswith("data: [DONE]")) == (0, True)
        assert server.end()[0] == 0


def reload(server: Terminal) -> None:
    """Send SIGHUP, and wait until the gateway has read its configuration again."""
    server.signal(signal.SIGHUP)
    server.expect(r"SIGHUP: reloading")
    server.expect(r"reloaded")
