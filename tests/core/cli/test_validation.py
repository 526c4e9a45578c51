"""`config --check` reports all typical mistakes at once, each with its place and a cure, and has no side effects."""

import io
import json
import os
import socket

import pytest

from gateway_core.cli.validation import show, validate
from gateway_core.storage.state_dir import claim

AGENT = "from agents import Agent\nagent = Agent(name='A')\n"

KEY = f"[plugins.security.keys.bob]\nid = 'agw_1'\nhash = 'sha256:{'a' * 64}'\n"

# The file, the place that the error names, and its cure.
MISTAKES = [
    # TOML
    ("[server]\nport 8000", "gateway.toml:2: port 8000: is not valid TOML", "write key = value"),
    ("[server]\nhost = localhost", "gateway.toml:2: host: is not valid TOML", "write text in quotes"),
    ("[http]\nfetch_images = True", "gateway.toml:2: fetch_images", "true and false in lower case"),
    ("[server]\nport = 1\nport = 2", "gateway.toml:3: port", "exists twice"),
    ("[server]\nport = 1\n[server]\nhost = 'x'", "gateway.toml:3: [server]", "exists twice"),
    ("[server\nport = 1", "gateway.toml:1: [server", "write a table as [name]"),
    ("[http]\ncors_origins = [", "gateway.toml:2", "write text in quotes"),
    ('[runs]\nrefusal = "no', "gateway.toml:2: refusal", "close the quotes"),
    ("[agents.my agent]\nmodel = 'x'", "gateway.toml:1", "in quotes"),
    # Tables and keys
    ("[serve]\nport = 1", "gateway.toml:1: [serve]", "did you mean 'server'?"),
    ("port = 8000", "gateway.toml:1: [port]", "move it below [server]"),
    ("plugins = 1", "gateway.toml:1: plugins", "write [plugins]"),
    ("[plugins]\nsecurity = true", "gateway.toml:2: [plugins] security", "write [plugins.security]"),
    ("[agents]\nA = 'gpt-5'", "gateway.toml:2: [agents] A", "write [agents.A]"),
    ("[server]\nPort = 1", "gateway.toml:2: [server] Port", "did you mean 'port'?"),
    ("\n# a comment\n[http]\nmax_bdy = 1", "gateway.toml:4: [http] max_bdy", "did you mean 'max_body'?"),
    ("[clients]\nrender = 'plain'", "[clients] render", "did you mean 'rendering'?"),
    ("[agents.A]\nmodle = 'x'", "gateway.toml:2: [agents.A] modle", "did you mean 'model'?"),
    ("[plugins.metrcis]\nopen = true", "gateway.toml:1: [plugins.metrcis]", "did you mean 'metrics'?"),
    ("[plugins.metrics]\nlisten_on = 'x'", "[plugins.metrics] listen_on", "did you mean 'listen'?"),
    ("[plugins.request_log]\nenabled = 'no'", "[plugins.request_log] enabled", "write false, without quotes"),
    # Types and ranges
    ("[server]\nport = '8000'", "gateway.toml:2: [server] port", "write 8000, without quotes"),
    ("[server]\nport = 99999", "[server] port: must be from 0 to 65535", "such as"),
    ("[server]\nhost = 'http://localhost'", "[server] host", "without scheme and port"),
    ("[server]\nhost = 'localhost:8000'", "[server] host", "the port is a separate setting"),
    ("[server]\nadmin_listen = '8001'", "[server] admin_listen", "use host:port"),
    ("[server]\ndrain_timeout = '30 seconds'", "[server] drain_timeout", 'try "30s"'),
    ("[server]\nsend_timeout = 0", "[server] send_timeout: must be greater than 0", 'try "30s"'),
    ("[runs]\ntimeout = inf", "[runs] timeout", 'try "30s"'),
    ("[http]\nmax_body = '10 megs'", "[http] max_body", 'try "64 KiB"'),
    ("[http]\nmax_messages = -1", "[http] max_messages: must be at least 1", "such as 1"),
    ("[http]\ncors_origins = 'https://a.example'", "[http] cors_origins", 'write ["https://a.example"]'),
    ("[http]\ncors_origins = ['a.example']", "[http] cors_origins", "write scheme and host"),
    ("[http]\nfetch_images_from = ['10.0.0.0/99']", "[http] fetch_images_from", "10.0.0.0/8"),
    ("[clients]\nrendering = 'fancy'", "[clients] rendering", "one of: plain, reasoning, openwebui"),
    ("[clients]\nprincipals = 'x'", "[clients] principals: must be a table", "key = value"),
    ("[runs.sandbox]\nclient = 'dokcer'", "[runs.sandbox] client", "docker"),
    ("[runs]\nsandbox = true", "[runs] sandbox: must be a table", "key = value"),
    ("[catalog]\nshow_broken = 1", "[catalog] show_broken", "write true or false"),
    ("[state]\nfolder = '/dev/null/state'", "[state] folder", "choose another directory"),
    ("[state]\nfolder = '$HOME/state'", "[state] folder: variables in text are not replaced", "write the path itself"),
    # Agents
    ("[agents.B]\nmodel = 'x'", "gateway.toml:1: [agents.B]", "known names: A"),
    ("[agents.A]\ntools = ['no_such_tool']", "no_such_tool", ""),
    ("[agents.A]\nentry = 'nope'", "nope", ""),
    # Upstreams
    ("[plugins.upstreams.u]\nbase_url = 'localhost:1234/v1'", "upstreams.u] base_url", '"http://localhost:1234/v1"'),
    ("[plugins.upstreams.u]\nbase_url = 'api.example.com/v1'", "] base_url", 'write "https://api.example.com/v1"'),
    ("[plugins.upstreams.u]\nbase_url = 'ftp://x/v1'", "upstreams.u] base_url", "use http:// or https://"),
    ("[plugins.upstreams.u]\nbase_url = 'http://my host/v1'", "upstreams.u] base_url", "use http:// or https://"),
    ("[plugins.upstreams.u]\nbase_url = ''", "upstreams.u] base_url", "use http:// or https://"),
    (
        "[plugins.upstreams.u]\nbase_url = 'http://x.example/v1/chat/completions'",
        "upstreams.u] base_url: is the URL of an endpoint",
        'write the base URL: "http://x.example/v1"',
    ),
    ("[plugins.upstreams.u]\nbase_url = 'http://u:p@x/v1'", "upstreams.u] base_url", "remove the credentials"),
    ("[plugins.upstreams.u]\nbase_url = '${URL}'", "upstreams.u] base_url", "write the URL itself"),
    ("[plugins.upstreams.u]\nbse_url = 'http://x/v1'", "upstreams.u] bse_url", "did you mean 'base_url'?"),
    ("[plugins.upstreams.u]\ndefault_model = 'm'", "upstreams.u] base_url: required key is missing", "add base_url"),
    ("[plugins.upstreams]\nbase_url = 'http://x/v1'", "[plugins.upstreams] base_url: unknown key", "known names"),
    ("[plugins.upstreams]\ndefault = 'u'", "[plugins.upstreams] default: unknown upstream 'u'", "add a table"),
    (
        "[plugins.upstreams.u]\nbase_url = 'http://127.0.0.1:9/v1'\nfallback = 'v'",
        "upstreams.u] fallback: unknown upstream 'v'",
        "known names: u",
    ),
    (
        "[plugins.upstreams.u]\nbase_url = 'http://x/v1'\napi_key = { env = 'NO_SUCH_VARIABLE' }",
        "upstreams.u] api_key: the environment variable NO_SUCH_VARIABLE is not set",
        "set the variable",
    ),
    (
        "[plugins.upstreams.u]\nbase_url = 'http://x/v1'\napi_key = { file = 'no/such/file' }",
        "gateway.toml:3: [plugins.upstreams.u] api_key: cannot read the file",
        "readable text file",
    ),
    (
        "[plugins.upstreams.u]\nbase_url = 'http://x/v1'\napi_key = '$OPENAI_API_KEY'",
        "upstreams.u] api_key: variables in text are not replaced",
        'write { env = "OPENAI_API_KEY" }',
    ),
    ("[plugins.upstreams.u]\nbase_url = 'http://x/v1'\nmax_retries = -1", "] max_retries", "such as"),
    # Other plugins
    (
        "[plugins.security.keys.bob]\nid = 'agw_1'\nhash = 'x'",
        "keys.bob] hash: not a valid key hash",
        "keys create bob",
    ),
    ("[plugins.security.keys.bob]\nid = 'agw_1'", "security.keys.bob] hash: required key is missing", "add hash"),
    ("[plugins.security.rules]\nagents = ['la bs/**x']", "security.rules] agents: invalid pattern", "labs/*"),
    ("[plugins.security.rules]\nclosed_tools = ['all']", "security.rules] closed_tools", "one of: sdk-native"),
    ("[plugins.security.namespaces.lbas]\nnative_tools = 'refuse'", "namespaces.lbas]: the rules are for", "names: A"),
    ("[plugins.security]\nallowed_hosts = ['https://a.example']", "[plugins.security] allowed_hosts", "the name alone"),
    ("[plugins.security.limits]\nrequests_per_minute = -5", "limits] requests_per_minute", "such as"),
    ("[plugins.security.limits]\nstorage = 'postgres://x'\ntokens_per_day = 1", "limits] storage", ""),
    ("[plugins.metrics]\nlisten = '9464'", "[plugins.metrics] listen", "use host:port"),
    ("[plugins.metrics]\notlp_endpoint = 'collector:4318'", "metrics] otlp_endpoint", 'write "http://collector:4318"'),
    ("[plugins.tracing]\nsample_ratio = 2", "[plugins.tracing] sample_ratio: must be between 0 and 1", "0.1"),
    ("[plugins.tracing]\nexporter = 'jaeger'", "[plugins.tracing] exporter", "one of: none, otlp, console"),
    ("[plugins.mcp_tools.time]\ncommand = ['uvx']", "mcp_tools.time] kind: required key is missing", "add kind"),
    ("[plugins.mcp_tools.gh]\nkind = 'http'\nurl = 'mcp.example'", "mcp_tools.gh] url", "use http://"),
    (
        "[plugins.mcp_tools.t]\nkind = 'stdio'\ncommand = 'uvx x'",
        "mcp_tools.t] command: must be a list",
        'write ["uvx x"]',
    ),
    ("[plugins.gateway_tools.w]\nkind = 'htp'", "gateway_tools.w] kind", "one of: python, http"),
    (
        "[plugins.gateway_tools.w]\nkind = 'http'\nurl = 'http://x/{a}'\ndescription = 'd'",
        "gateway_tools.w] url",
        "none",
    ),
    ("[plugins.request_log]\nlevel = 'debug'", "[plugins.request_log] level", "one of: DEBUG, INFO"),
    ("[http]\nmax_body = 0", "[http] max_body: must be greater than 0", 'try "64 KiB"'),
    ("[plugins.error_recorder]\ncapacity = 0", "[plugins.error_recorder] capacity", "such as 1"),
    ("[plugins.loop_monitor]\nthreshold = '1 ms'", "[plugins.loop_monitor] threshold", ""),
    ("[plugins.folder_discovery]\npath = 'gateway.toml'", "[plugins.folder_discovery] path", "name a folder"),
]

# Settings without effect, which may be intended.
SUSPICIOUS = [
    (
        "[plugins.security.rules]\nagents = ['labs/*']",
        "rules] agents: the pattern 'labs/*' matches no agent",
        "names: A",
    ),
    ("[plugins.upstreams.u]\nbase_url = 'http://127.0.0.1:9'", "] base_url: has no path", '"http://127.0.0.1:9/v1"'),
    ("[agents.A]\ntools = ['no/*']", "no gateway tool matches 'no/*'", ""),
    ("[plugins.folder_discovery]\npath = 'agentz'", "[plugins.folder_discovery] path: the folder", "create it"),
    ("[plugins.gateway_tools]\npath = 'toolz'", "[plugins.gateway_tools] path: the folder", "create it"),
    (
        "[plugins.mcp_tools.t]\nkind = 'stdio'\ncommand = ['no-such-program']",
        "mcp_tools.t] command: the program 'no-such-program' is not in PATH",
        "install it",
    ),
    ("[plugins.mcp_tools.t]\nkind = 'http'\nurl = 'http://127.0.0.1:9'\ntoken_file = 'no'", "] token_file", "create"),
    (f"{KEY}expires = '2020-01-01'", "security.keys.bob] expires: the key expired", "keys create bob"),
    (f"{KEY}[clients]\nprincipals = {{ bbo = 'plain' }}", "[clients] principals: no key belongs", "did you mean 'bob'"),
]

VARIABLES = [
    ({"GATEWAY__SERVER__PORT": "many"}, "environment variable GATEWAY__SERVER__PORT: [server] port", "such as 10"),
    ({"GATEWAY__SERVR__PORT": "1"}, "environment variable GATEWAY__SERVR__PORT", "did you mean 'server'?"),
    ({"GATEWAY__SERVER__PROT": "1"}, "GATEWAY__SERVER__PROT: [server] prot", "did you mean 'port'?"),
    ({"GATEWAY__SERVER": "1"}, "environment variable GATEWAY__SERVER", "GATEWAY__TABLE__KEY"),
    ({"GATEWAY__SERVER__PORT__X": "1"}, "GATEWAY__SERVER__PORT__X: 'port' is a setting", "write GATEWAY__SERVER__PORT"),
    ({"GATEWAY__PLUGINS__UPSTREAM__PROBE": "no"}, "GATEWAY__PLUGINS__UPSTREAM__PROBE", "did you mean 'upstreams'?"),
    ({"GATEWAY__HTTP__FETCH_IMAGES": "maybe"}, "[http] fetch_images", "write true or false"),
    ({"GATEWAY_SERVER__PORT": "1"}, "environment variable GATEWAY_SERVER__PORT", "did you mean GATEWAY__SERVER__PORT?"),
    ({"OPENAI_BASE_URL": "localhost:1"}, "environment variable OPENAI_BASE_URL: invalid URL", '"http://localhost:1"'),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one agent, as the working directory; the environment configures nothing."""
    for name in [name for name in os.environ if name.startswith(("GATEWAY", "OPENAI_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "agents" / "A").mkdir(parents=True)
    (tmp_path / "agents" / "A" / "agent.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY__PLUGINS__ENTRY_POINT_DISCOVERY__ENABLED", "false")
    monkeypatch.setenv("GATEWAY__PLUGINS__UPSTREAMS__PROBE", "false")
    return tmp_path


def check(port=0, **overrides):
    """Return the lines of the result and the exit status."""
    output = io.StringIO()
    server = {"server": {"port": port}} if port is not None else {}
    status = show(validate(None, None, {**server, **overrides}), output, as_json=False)
    return output.getvalue().splitlines(), status


@pytest.mark.parametrize(("text", "place", "cure"), MISTAKES, ids=lambda value: None)
def test_a_mistake_is_reported_with_its_place_and_a_cure(folder, text, place, cure):
    (folder / "gateway.toml").write_text(text)
    lines, status = check(None if "port" in text else 0)
    [line] = [line for line in lines if line.startswith("error: ")]
    assert place in line
    assert cure in line
    assert line.endswith(")"), "the cure is in parentheses"
    assert status == 78


@pytest.mark.parametrize(("text", "place", "cure"), SUSPICIOUS, ids=lambda value: None)
def test_a_setting_without_effect_is_a_warning_with_its_place_and_a_cure(folder, text, place, cure):
    (folder / "gateway.toml").write_text(text)
    lines, status = check()
    [line] = [line for line in lines if line.startswith("warning: ") and place in line]
    assert cure in line
    assert status == 0


@pytest.mark.parametrize(("variables", "place", "cure"), VARIABLES, ids=lambda value: None)
def test_a_mistake_in_a_variable_is_reported_with_its_name_and_a_cure(folder, monkeypatch, variables, place, cure):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines, _ = check(None)
    [line] = [line for line in lines if place in line]
    assert cure in line


def test_the_defaults_and_a_correct_file_are_valid(folder):
    assert check() == (["the configuration is valid"], 0)
    (folder / "gateway.toml").write_text(
        "[agents.A]\nmodel = 'x'\n[plugins.security.namespaces.a]\nnative_tools = 'refuse'\n"
    )
    assert check() == (["the configuration is valid"], 0)


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(folder):
    (folder / "gateway.toml").write_text(
        "[server]\nprt = 1\nbacklog = 0\n[plugins.upstreams.a]\nbase_url = 'x y'\n[plugins.upstreams.b]\n"
        "[plugins.nope]\n[plugins.security.keys.bob]\nid = '!'\nhash = 'x'\n[agents.B]\n[agents.A]\nmodle = 'x'\n"
    )
    lines, status = check(None)
    places = [line.split(": ")[1] for line in lines if line.startswith("error")]
    assert places == [f"gateway.toml:{number}" for number in (2, 3, 5, 6, 7, 10, 11, 13)]
    assert lines[-1] == "8 errors, 0 warnings"
    assert status == 78


def test_a_setting_of_the_wrong_type_is_not_quoted_if_it_may_be_a_secret(folder):
    (folder / "gateway.toml").write_text(
        "[plugins.upstreams.u]\nbase_url = 'http://127.0.0.1:9/v1'\n"
        "api_key = ['canary']\nheaders = 'Authorization: canary'\n"
        "[plugins.mcp_tools.m]\nkind = 'stdio'\ncommand = ['python']\nenv = ['TOKEN=canary']\n"
        "[plugins.security]\nkeys = { bob = 'canary' }\n"
    )
    lines, status = check()
    assert status == 78
    assert len(lines) == 5
    assert "canary" not in "".join(lines)
    assert any("headers: must be a table, not text" in line for line in lines)


def test_a_setting_without_effect_is_a_warning(folder):
    (folder / "agents" / "A" / "agent.py").write_text(f"{AGENT}__gateway__ = {{'descriptoin': 'x'}}\n")
    (folder / "gateway.toml").write_text("[plugins.security.rules]\nagents = ['labs/*']\n")
    lines, status = check()
    assert "gateway.toml:2: [plugins.security.rules] agents: the pattern 'labs/*' matches no agent" in lines[0]
    assert "'descriptoin'" in lines[1]
    assert "did you mean 'description'?" in lines[1]
    assert (lines[2], status) == ("0 errors, 2 warnings", 0)


def test_json_has_file_line_and_cure(folder):
    (folder / "gateway.toml").write_text("[server]\n\nport = -1\n")
    output = io.StringIO()
    assert show(validate(None, None, {}), output, as_json=True) == 78
    [found] = json.loads(output.getvalue())
    assert found == {
        "level": "error",
        "file": "gateway.toml",
        "line": 3,
        "source": "gateway.toml: [server] port",
        "message": "must be from 0 to 65535, not -1",
        "hint": "such as 1",
        "code": "invalid_config",
    }


def test_ports_in_use_are_reported_and_the_gateways_own_are_only_noted(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (folder / "gateway.toml").write_text(f"[plugins.metrics]\nlisten = '127.0.0.1:{port}'\n")
        lines, status = check(port)
        assert f"[plugins.metrics] listen: cannot listen on 127.0.0.1:{port}: Address already in use" in lines[0]
        assert f"the command line: [server] port: cannot listen on 127.0.0.1:{port}" in lines[1]
        assert status == 78


def test_the_check_leaves_no_files(folder):
    (folder / "gateway.toml").write_text("[plugins.security.limits]\ntokens_per_day = 5\n")
    before = sorted(folder.rglob("*"))
    assert check()[1] == 0
    assert [each for each in sorted(folder.rglob("*")) if "__pycache__" not in each.parts] == before


def test_a_server_without_data_removes_the_state_directory_only_if_it_created_it(tmp_path):
    for name, exists in (("own", False), ("given", True)):
        state = tmp_path / name
        if exists:
            state.mkdir()
        with claim(state):
            assert state.is_dir()
        assert state.exists() is exists


def test_an_unused_state_directory_is_not_claimed(folder):
    with claim(folder / ".agent-gateway"):
        assert check()[1] == 0


def test_the_start_of_a_third_party_plugin_is_checked(folder, monkeypatch):
    (folder / "theirs.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from gateway_core import ConfigError, hookimpl\n"
        "class Plugin:\n"
        "    def __init__(self, gateway, config):\n"
        "        pass\n"
        "    @hookimpl\n"
        "    @asynccontextmanager\n"
        "    async def lifespan(self):\n"
        "        raise ConfigError('no such bucket', source='[plugins.theirs]', hint='create it')\n"
        "        yield\n"
        "    @hookimpl\n"
        "    def middleware(self):\n"
        "        return 1 / 0\n"
    )
    info = folder / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[agent_gateway.plugins]\ntheirs = theirs:Plugin\n")
    monkeypatch.syspath_prepend(folder)
    (folder / "gateway.toml").write_text("[plugins.theirs]\n")
    lines, status = check()
    assert "error: gateway.toml:1: [plugins.theirs]: no such bucket (create it)" in lines
    assert "error: plugin theirs: failed in middleware: ZeroDivisionError" in "\n".join(lines)
    assert status == 78
