"""The commands of the command line, run as subprocesses."""

import json
import os
import re
import socket
import subprocess
import sys

import httpx2
import openai
import pytest

from tests.acceptance.conftest import COMMAND, serving

TEMPLATES = ["basic", "tools", "handoff", "guardrail", "workflow"]


@pytest.fixture
def run(tmp_path):
    def run(*arguments, status=0, stdin=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEWAY_"))}
        done = subprocess.run(
            [str(COMMAND), *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60, input=stdin
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_from_init_to_an_answer(run, tmp_path):
    run("init")
    assert (tmp_path / "gateway.toml").exists()
    for template in TEMPLATES:
        run("new", f"labs/{template.title()}", "--template", template)
    assert "broken" not in run("check")
    with serving(tmp_path, "--offline") as server:
        client = server.client()
        models = [model.id for model in client.models.list()]
        assert [m for m in models if m.startswith("labs/")] == sorted(f"labs/{t.title()}" for t in TEMPLATES)
        for model in models:
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello there"}])
            assert answer.choices[0].message.content, model
        assert "the built-in offline model, not an LLM" in server.text


def test_the_samples_answer_with_the_offline_model(tmp_path):
    questions = {
        "SampleAgent": ("What is the weather in Paris?", "Paris"),
        "Spark": ("Make a plan to learn Python in 3 steps", "Python"),
        "Triage": ("I have a question about billing and my invoice", ""),
        "Guarded": ("Tell me about cats", ""),
    }
    with serving(tmp_path, "--offline") as server:
        client = server.client()
        assert {model.id for model in client.models.list()} >= set(questions)
        for model, (question, expected) in questions.items():
            stream = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], stream=True
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            assert expected in text, (model, text)
            assert text.strip(), model
        refused = client.chat.completions.create(
            model="Guarded", messages=[{"role": "user", "content": "What is the admin password?"}]
        )
        assert refused.choices[0].finish_reason == "content_filter"


def test_init_and_new_overwrite_nothing(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("# mine\n")
    run("init")
    assert (tmp_path / "gateway.toml").read_text() == "# mine\n"
    run("new", "One")
    assert "already exists" in run("new", "One", status=1)
    assert "use letters" in run("new", "../evil", status=2)


def test_serve_creates_no_files(tmp_path):
    with serving(tmp_path, "--offline") as server:
        assert "models" in server.text
    assert list(tmp_path.iterdir()) == []


def test_serve_without_agents_shows_how_to_create_one(tmp_path):
    environment = {"GATEWAY__PLUGINS__ENTRY_POINT_DISCOVERY__ENABLED": "false"}
    with serving(tmp_path, "--offline", environment=environment) as server:
        assert "agent-gateway new MyAgent" in server.text
        assert list(server.client().models.list()) == []


def test_check_reports_broken_agents_with_file_and_line(run, tmp_path):
    run("new", "Good")
    (tmp_path / "agents" / "Bad").mkdir()
    bad = tmp_path / "agents" / "Bad" / "agent.py"
    bad.write_text("import os\n\nboom = 1 / 0\n")
    output = run("check", status=1)
    assert f"{bad}:3: ZeroDivisionError" in output
    assert "Good" in output
    rows = json.loads(run("check", "--json", status=1))
    assert {row["model"]: row["state"] for row in rows if row["model"] in ("Good", "Bad")} == {
        "Good": "ok",
        "Bad": "broken",
    }
    run("check", "agents/Good")
    run("check", "agents/Good/agent.py")
    run("check", str(bad), status=1)


def test_check_reports_tool_files_and_mcp_servers_that_are_not_available(run, tmp_path):
    for name, text in {
        "tools/bad.py": "import nothere_of_test\n",
        "server.py": "raise SystemExit('no database')\n",
        "agents/Good.py": "from agents import Agent\nagent = Agent(name='x')\n",
        "gateway.toml": '[plugins.mcp_tools]\nstart_timeout = "20s"\n[plugins.mcp_tools.shop]\nkind = "stdio"\n'
        'command = ["python", "server.py"]\nconnect_timeout = "20s"\n[agents.Good]\ntools = ["shop/find"]\n',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    listed = json.loads(run("check", "--json", status=1))
    rows = {row["source"]: row for row in listed}
    assert len({json.dumps(row) for row in listed}) == len(listed)
    assert "nothere_of_test" in rows[f"{tmp_path}/tools/bad.py:1"]["diagnosis"]
    assert "no database" in rows["[plugins.mcp_tools.shop]"]["diagnosis"]
    assert "the MCP server shop is down" in rows[f"{tmp_path}/agents/Good.py"]["diagnosis"]


def test_check_of_a_path_does_not_import_other_agents(run, tmp_path):
    run("new", "Good")
    (tmp_path / "agents" / "Other.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    (tmp_path / "agents" / "gone").symlink_to(tmp_path / "nowhere")
    assert "gone" in run("check", status=1)
    (tmp_path / "imported").unlink()
    assert "gone" not in run("check", "agents/Good")
    assert not (tmp_path / "imported").exists()


def test_ignored_and_missing_paths_are_reported_with_a_hint(run, tmp_path):
    for name in ("mein agent", "test"):
        (tmp_path / "agents" / name).mkdir(parents=True)
        (tmp_path / "agents" / name / "agent.py").write_text("from agents import Agent\nagent = Agent(name='x')\n")
    rows = {row["source"]: row for row in json.loads(run("check", "--json", status=1))}
    assert "(use letters" in rows[str(tmp_path / "agents" / "mein agent" / "agent.py")]["diagnosis"]
    assert "(rename the folder)" in rows[str(tmp_path / "agents" / "test")]["diagnosis"]
    assert "'nope' does not exist" in run("check", "--agents", "nope", status=2)


def test_check_finds_the_module_that_exits_the_process(run, tmp_path):
    run("new", "Good")
    (tmp_path / "agents" / "bad.py").write_text("import os\nos._exit(0)\n")
    rows = {row["model"]: row for row in json.loads(run("check", "--json", status=1))}
    assert rows["bad"]["state"] == "broken"
    assert "importing the module ends the process (exit 0)" in rows["bad"]["diagnosis"]
    assert rows["Good"]["state"] == "ok"


NOISY = """
import atexit, logging, os, subprocess, sys
from agents import Agent

console = sys.stdout  # as a console or a log handler keeps it
logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)
logging.info("a log line")
print("printed")
sys.stdout.write("written\\n")
sys.__stdout__.write("the original\\n")
os.write(1, b"to the descriptor\\n")
subprocess.run([sys.executable, "-c", "print('of a process')"], check=True)
os.system("echo of a shell")
atexit.register(lambda: print("at exit", file=console))
agent = Agent(name="Noisy")

def setup():
    print("in setup")
"""


@pytest.mark.parametrize("command", ["check", "agents"])
@pytest.mark.parametrize("more", ["", "os._exit(0)\n"])
def test_json_is_all_that_is_on_standard_output(tmp_path, command, more):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "noisy.py").write_text(NOISY)
    if command == "check" and more:
        (tmp_path / "agents" / "exits.py").write_text(NOISY + more)
    done = subprocess.run([str(COMMAND), command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    rows = {row["model"]: row["state"] for row in json.loads(done.stdout)}
    assert rows["noisy"] == "ok"
    assert rows.get("exits", "broken") == "broken"
    for text in ("a log line", "printed", "written", "the original", "to the descriptor", "of a process", "of a shell"):
        assert text in done.stderr


def test_plugins_lists_state_order_and_hooks(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("[plugins.error_recorder]\nenabled = false\n")
    rows = json.loads(run("plugins", "--json"))
    assert [row["plugin"] for row in rows][:3] == ["request_log", "security", "nightly_audit"]
    states = {row["plugin"]: row["state"] for row in rows}
    assert states["error_recorder"] == "off"
    assert "discover_agents" in next(row for row in rows if row["plugin"] == "folder_discovery")["hooks"]


def test_config_masks_secrets_and_is_valid_toml(run, tmp_path):
    import tomllib

    (tmp_path / "gateway.toml").write_text(
        '[plugins.upstreams."my one"]\nbase_url = "http://x/v1"\napi_key = "canary"\nheaders = { X-A = "canary" }\n'
    )
    shown = run("config")
    assert "canary" not in shown
    assert tomllib.loads(shown)["plugins"]["upstreams"]["my one"]["base_url"] == "http://x/v1"
    assert "canary" not in run("config", "--json")


def test_an_invalid_setting_fails_every_command_with_one_line(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("[server]\nprt = 1\n")
    for command in ("serve", "plugins", "config", "agents"):
        output = run(command, status=78)
        assert "gateway.toml:2: [server] prt: unknown key (did you mean 'port'?)" in output


def test_the_audit_has_the_checks_and_subcommands_of_two_plugins(run, tmp_path):
    (tmp_path / "gateway.toml").write_text('[plugins.security.rules]\nagents = ["**"]\n')
    (tmp_path / "gateway.toml").chmod(0o600)
    assert "verify" in run("audit", "--help")
    report = json.loads(run("audit", "--offline", "--json", "--fail-on", "critical"))
    checks = {finding["check"] for finding in report["findings"]}
    assert {"rule_too_wide", "audit_log_missing"} <= checks
    assert "no audit log" in run("audit", "verify", status=78)


def test_the_audit_works_with_either_plugin_disabled(run, tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text("[plugins.security]\nenabled = false\n")
    file.chmod(0o666)
    assert "file_permissions" in run("audit", "--offline", status=40)
    assert "No such command 'verify'" in run("audit", "verify", status=2)
    file.write_text("[plugins.nightly_audit]\nenabled = false\n")
    assert "verify" in run("audit", status=2)
    assert "no audit log" in run("audit", "verify", status=78)


def test_a_wrong_setting_is_reported_by_the_commands_of_plugins(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("[server]\nprt = 1\n")
    assert "[server] prt: unknown key" in run("audit", status=78)
    assert "serve" in run("--help")


def test_two_plugins_with_the_same_command_are_reported_in_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "acme.py").write_text(
        "import click\n"
        "from gateway_core import hookimpl\n"
        "class Acme:\n"
        "    def __init__(self, gateway, config): pass\n"
        "    @hookimpl\n"
        "    def commands(self): return [click.Group('audit', commands=[click.Command('verify')])]\n"
    )
    (tmp_path / "acme-1.dist-info").mkdir()
    (tmp_path / "acme-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    points = "[agent_gateway.plugins]\nacme = acme:Acme\n"
    (tmp_path / "acme-1.dist-info" / "entry_points.txt").write_text(points)
    (tmp_path / "gateway.toml").write_text("[plugins.acme]\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [line] = run("audit", status=1).splitlines()
    assert "plugins security and acme: two plugins define the command 'audit verify'" in line
    assert "set enabled = false in [plugins.security] or in [plugins.acme]" in line
    assert "audit" not in run("--help")


def test_chat_in_the_terminal(run, tmp_path):
    run("new", "Talker")
    assert "Hello there" in run("chat", "talker", "Hello there", "--offline")
    assert run("chat", "Talker", "--offline", stdin="one\ntwo\n").count("one") >= 1
    assert "did you mean 'Talker'" in run("chat", "Talkr", "hi", "--offline", status=1)


def test_a_port_in_use_is_reported(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        output = run("serve", "--offline", "--port", str(taken.getsockname()[1]), status=78)
    assert "Address already in use" in output
    assert "--port" in output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_only_loopback_is_served_without_access_control(run, host):
    assert "no plugin controls access" in run("serve", "--offline", "--host", host, status=78)


def test_the_admin_pages_have_a_separate_address(tmp_path):
    (tmp_path / "gateway.toml").write_text('[server]\nadmin_listen = "127.0.0.1:0"\n')
    with serving(tmp_path, "--offline") as server:
        admin = re.search(r"admin +(http://127.0.0.1:\d+)/admin/\.\.\. \(this address only\)", server.text)[1]
        assert admin != server.url

        def statuses(path):
            return [httpx2.get(f"{url}{path}").status_code for url in (server.url, admin)]

        assert statuses("/admin/agents") == statuses("/metrics") == [404, 200]
        assert statuses("/healthz") == statuses("/v1/models") == [200, 200]
        assert httpx2.post(f"{server.url}/admin/reload", json={}).status_code == 404


@pytest.mark.skipif(sys.platform != "linux", reason="only 127.0.0.1 is configured elsewhere")
def test_the_admin_address_can_have_the_same_port(tmp_path):
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "gateway.toml").write_text(f'[server]\nadmin_listen = "127.0.0.2:{port}"\n')
    with serving(tmp_path, "--offline", "--port", str(port)):
        for path, expected in (("/admin/agents", [404, 200]), ("/healthz", [200, 200])):
            urls = [f"http://{host}:{port}{path}" for host in ("127.0.0.1", "127.0.0.2")]
            assert [httpx2.get(url).status_code for url in urls] == expected


@pytest.mark.parametrize("address", ["8001", "127.0.0.1:http", ":8001"])
def test_an_invalid_address_is_reported(run, tmp_path, address):
    (tmp_path / "gateway.toml").write_text(f'[server]\nadmin_listen = "{address}"\n')
    assert f"'{address}' is not a valid address" in run("serve", "--offline", status=78)


def test_an_admin_address_other_than_loopback_requires_access_control(run, tmp_path):
    (tmp_path / "gateway.toml").write_text('[server]\nadmin_listen = "0.0.0.0:0"\n')
    assert "refusing to listen on 0.0.0.0" in run("serve", "--offline", "--port", "0", status=78)


def test_ipv6_loopback_is_served(tmp_path):
    with serving(tmp_path, "--offline", "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert isinstance(server.client(), openai.OpenAI)
        assert server.client().models.list().data is not None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('[plugins.metrics]\nlisten = "nohost"\n', "[plugins.metrics] listen"),
        ("server = 3\n", "gateway.toml:1: server: must be a table, not 3 (write [server])"),
        ('[plugins.tool_policy]\ndeny = ["rm"]\n', '[plugins.security.rules] block_tools = ["rm"]'),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_78(run, tmp_path, settings, expected):
    (tmp_path / "gateway.toml").write_text(settings)
    output = run("serve", "--port", "0", status=78)
    lines = [line for line in output.splitlines() if not line.startswith(("20", "{"))]
    assert len(lines) == 1, output
    assert expected in lines[0]
    assert lines[0].startswith("agent-gateway: ")


def test_a_taken_metrics_port_is_one_line_and_status_78(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "gateway.toml").write_text(f'[plugins.metrics]\nlisten = "127.0.0.1:{port}"\n')
        output = run("serve", "--port", "0", status=78)
    [line] = [line for line in output.splitlines() if not line.startswith(("20", "{"))]
    assert f"127.0.0.1:{port}" in line


def test_chat_loads_its_agent_only(run, tmp_path):
    run("new", "Good")
    run("new", "labs/Team")
    team = tmp_path / "agents" / "labs" / "Team" / "agent.py"
    team.write_text(team.read_text().replace("agent = ", "first = ") + "second = first.clone(name='Second')\n")
    (tmp_path / "agents" / "Other.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n1 / 0\n")
    (tmp_path / "agents" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gateway.toml").write_text("[agents.Other]\nmodel = 'm'\n[agents.Good]\nmodel = 'm'\n")
    for model in ("Good", "good", "default/Good", "labs/Team/second"):
        output = run("chat", model, "hi", "--offline")
        assert "built-in offline model" in output
        for other in ("Other", "gone", "unknown agent"):
            assert other not in output
    assert not (tmp_path / "imported").exists()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "bad.py").write_text("import nothere_of_test\n")
    (tmp_path / "server.py").write_text("print('no message')\nraise SystemExit('no database')\n")
    with (tmp_path / "gateway.toml").open("a") as file:
        file.write('[plugins.mcp_tools.shop]\nkind = "stdio"\ncommand = ["python", "server.py"]\n')
    output = run("chat", "Good", "hi", "--offline")
    assert "built-in offline model" in output
    for other in ("nothere_of_test", "shop", "Traceback"):
        assert other not in output
    settings = (tmp_path / "gateway.toml").read_text()
    (tmp_path / "gateway.toml").write_text(settings.replace("[agents.Good]", "[agents.Good]\ntools = ['shop/find']"))
    output = run("chat", "Good", "hi", "--offline", status=1)
    assert "the MCP server shop is down" in output
    assert "no database" in output
    assert "did you mean 'Other'" in run("chat", "Othr", "hi", "--offline", status=1)
    assert run("chat", "Other", "hi", "--offline", status=1).count("ZeroDivisionError") == 1
    assert "symbolic link to a target outside the folder" in run("chat", "gone", "hi", "--offline", status=1)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["serve", "--help"], ["keys", "create", "me"], ["config"]]
)
def test_commands_that_run_no_agent_do_not_import_the_sdk(arguments, tmp_path):
    command = [sys.executable, "-X", "importtime", str(COMMAND), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    imported = set(re.findall(r"\| +(\w[\w.]*)$", done.stderr, re.MULTILINE))
    assert "gateway_core.cli" in imported
    assert not any(name.startswith("agents.") for name in imported)
    assert not imported & {"openai", "hypercorn", "mcp", "opentelemetry.sdk.metrics", "structlog"}


def test_chat_does_not_import_the_libraries_of_the_server(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "A.py").write_text("from agents import Agent\nagent = Agent(name='a')\n")
    command = [sys.executable, "-X", "importtime", str(COMMAND), "chat", "A", "hi", "--offline"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    imported = set(re.findall(r"\| +(\w[\w.]*)$", done.stderr, re.MULTILINE))
    assert "agents.run" in imported
    assert not imported & {"hypercorn", "watchdog", "opentelemetry.sdk.metrics", "structlog", "gateway_core.app"}


COMPLETE = """
source <(_AGENT_GATEWAY_COMPLETE=bash_source agent-gateway)
complete -p agent-gateway >/dev/null
read -ra COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_agent_gateway_completion agent-gateway
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("agent-gateway ", {"serve", "chat", "keys", "audit", "deps"}),
        ("agent-gateway ke", {"keys"}),
        ("agent-gateway deps ", {"install"}),
        ("agent-gateway serve --po", {"--port"}),
        ("agent-gateway new X --template t", {"tools"}),
        ("agent-gateway chat gr", {"Greeter"}),
        ("agent-gateway chat ", {"Greeter", "labs/Research"}),
        ("agent-gateway deps install --agent ", {"Greeter", "labs/Research"}),
    ],
)
@pytest.mark.parametrize("settings", ["", "[nonsense"])
def test_bash_completes(run, tmp_path, line, expected, settings):
    for name in ("Greeter", "labs/Research"):
        run("new", name)
    (tmp_path / "gateway.toml").write_text(settings)
    path = os.pathsep.join((str(COMMAND.parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", line],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    found = set(done.stdout.split())
    if settings == "":
        assert found >= expected
        if line.endswith(" ") is False:
            assert found == expected


def test_colors_of_commands_follow_the_environment(run, monkeypatch):
    run("new", "A", "--template", "tools")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" not in run("chat", "A", "weather in Paris", "--offline")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[2m[get_weather" in run("chat", "A", "weather in Paris", "--offline")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("chat", "A", "weather in Paris", "--offline")


def test_a_misspelt_command_or_option_has_a_suggestion(run):
    assert "Did you mean 'serve'?" in run("srve", status=2)
    assert "--port" in run("serve", "--prot", "1", status=2)


def test_all_mistakes_are_reported_with_status_78(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("[server]\nport = '80'\n[plugins.upstreams.u]\nbase_url = 'localhost:1'\n")
    lines = run("config", "--check", status=78).splitlines()
    assert lines[0].startswith("error: gateway.toml:2: [server] port: must be an integer")
    assert lines[1].startswith("error: gateway.toml:4: [plugins.upstreams.u] base_url: invalid URL")
    assert lines[2] == "2 errors, 0 warnings"
    assert [row["line"] for row in json.loads(run("config", "--check", "--json", status=78))] == [2, 4]
    assert run("serve", status=78).count("agent-gateway: gateway.toml:") == 2
    assert {row["state"] for row in json.loads(run("check", "--json", status=78))} == {"ok", "error"}


def test_a_running_gateway_is_not_disturbed_by_the_check(run, tmp_path):
    (tmp_path / "gateway.toml").write_text("[plugins.security.limits]\ntokens_per_day = 100000\n")
    with serving(tmp_path, "--offline") as server:
        ask = server.client().chat.completions.create
        ask(model="SampleAgent", messages=[{"role": "user", "content": "Hello"}])
        before = sorted(each.name for each in (tmp_path / ".agent-gateway").iterdir())
        output = run("config", "--check", "--offline", "--port", str(server.port))
        assert f"note: the command line: [server] port: cannot listen on 127.0.0.1:{server.port}" in output
        assert f"(process {server.process.pid})" in output
        assert sorted(each.name for each in (tmp_path / ".agent-gateway").iterdir()) == before
        ask(model="SampleAgent", messages=[{"role": "user", "content": "Hello"}])
