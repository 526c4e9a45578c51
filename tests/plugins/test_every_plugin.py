"""Each plugin can be switched off, and each can be the only one: a gateway still starts, and what is left works."""

import ast
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from agents import Agent

import gateway_core
from gateway_core import hookimpl
from gateway_core.app import build
from gateway_core.cli import COMMANDS, read_config
from gateway_core.cli.serve import banner
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.server.hypercorn import run
from gateway_core.testing import AsgiTransport, gateway_in_memory, script
from tests.support.interpreter import run_python

NAMES = list(load_config(environ={}).plugins)


def test_every_built_in_plugin_has_a_table_and_an_entry_point():
    ours = {point.name for point in entry_points(group="agent_gateway.plugins") if point.dist.name == "agent-gateway"}
    assert set(NAMES) == ours


@pytest.mark.parametrize("name", NAMES)
def test_a_plugins_defaults_are_those_of_default_toml(name):
    import attrs

    [point] = [p for p in entry_points(group="agent_gateway.plugins") if p.name == name]
    settings = getattr(point.load(), "Config", None)
    table = {k: v for k, v in load_config(environ={}).plugins[name].items() if k != "enabled"}
    if settings is None:
        assert table == {}
        return
    config = load_config(environ={})
    own = {a.name for a in attrs.fields(settings) if a.name in table}
    assert own == set(table), "default.toml lists each setting"
    plain = settings()
    structured = config.structure(table, settings, "plugins", name)
    for key in own - {"path"}:
        assert getattr(structured, key) == getattr(plain, key)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alone", [False, True], ids=["left out", "alone"])
async def test_the_gateway_starts_without_it_and_with_nothing_else(name, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    off = [other for other in NAMES if (other != name) is alone]
    tables = {other: {"enabled": False} for other in off}
    if "upstreams" not in tables:
        tables["upstreams"] = {"probe": False}
    app = build(load_config(environ={}, overrides={"plugins": tables}))
    import httpx2

    async with (
        app.state.gateway,
        httpx2.AsyncClient(transport=AsgiTransport(app), base_url="http://localhost") as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("name", [None, *NAMES])
async def test_messages_name_only_plugins_and_commands_that_are_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugins = {"upstreams": {"probe": False}} | ({name: {"enabled": False}} if name else {})
    app = build(load_config(environ={}, overrides={"server": {"host": "0.0.0.0"}, "plugins": plugins}))
    gateway = app.state.gateway
    with pytest.raises(ConfigError) as refused:
        run(app, lambda url: None)
    async with gateway:
        text = "\n".join([*banner("http://localhost", gateway), str(refused.value)])
    named = set(re.findall(r"agent-gateway ([a-z]+)", text))
    assert ("keys" in named) is (name != "security")
    assert named <= {*COMMANDS, *gateway.hooks.commands()}
    assert name is None or not re.search(rf"\b{name}\b", text)
    assert ("enable a plugin that implements `authorize`" in text) is (name == "security")


async def test_the_banner_shows_the_lines_of_plugins_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plugin(lines):
        class Plugin:
            access_hint = "ask the operator"

            def __init__(self, gateway, config):
                pass

            @hookimpl
            def describe(self):
                return {"banner": lines}

        return Plugin

    off = {name: {"enabled": False} for name in NAMES}
    added = {"one": plugin({"zone": "a", "upstream": "acme"}), "two": plugin({"zone": "b", "area": "c"})}
    app = build(load_config(environ={}, overrides={"plugins": off}), plugins=added)
    async with app.state.gateway as gateway:
        lines = list(banner("http://localhost", gateway))
    assert lines[1] == "  upstream   acme"
    assert lines[3:5] == ["  zone       a", "  area       c"]
    assert "  access     open, from this machine only; ask the operator" in lines


def test_commands_skip_the_plugins_that_say_so(tmp_path):
    def off(*skip):
        tables = read_config(None, tmp_path, skip=skip).plugins
        return {name for name, table in tables.items() if table.get("enabled") is False}

    check = {"upstreams", "hot_reload", "metrics", "error_recorder"}
    assert off("check") == check
    assert off("check", "paths") == {*check, "entry_point_discovery"}
    assert off("chat") == {"hot_reload", "metrics"}
    assert off("offline") == {"upstreams"}
    assert read_config(None, tmp_path).plugins["folder_discovery"]["path"] == str(tmp_path)


# Words that the core uses in another meaning: the code of an error, and a key of the OpenAPI document.
OTHER_MEANINGS = {"catalog/builder.py", "http/openapi/document.py", "runs/streaming_fallback.py"}


def test_the_core_names_no_plugin():
    core = Path(gateway_core.__file__).parent
    names = re.compile(rf"(?:plugins\.|/)?({'|'.join(NAMES)})(?:[./].*)?")
    found = []
    for file in core.rglob("*.py"):
        relative = file.relative_to(core)
        # `testing` sets the defaults of tests.
        if "templates" in relative.parts or str(relative) in {*OTHER_MEANINGS, "testing.py"}:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and names.fullmatch(node.value):
                found.append(f"{relative}:{node.lineno}: {node.value}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "agent-gateway keys" in node.value:
                found.append(f"{relative}:{node.lineno}: {node.value}")
    assert not found


async def test_agents_answer_with_every_plugin_off():
    off = {name: {"enabled": False} for name in NAMES}
    agent = Agent(name="x", model=script("hello"))
    async with gateway_in_memory({"X": agent}, config={"plugins": off}) as g:
        answer = await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "hello"


def test_a_plugin_that_is_switched_off_is_not_imported(tmp_path):
    code = (
        "import sys; from gateway_core.config.settings import load_config; "
        "from gateway_core.hooks.plugin_loader import load_plugins; "
        "from gateway_core.hooks.null_gateway import NullGateway; "
        "off = {'plugins': {'error_recorder': {'enabled': False}}}; "
        "load_plugins(load_config(environ={}, overrides=off), NullGateway()); "
        "print('gateway_plugins.error_recorder' in sys.modules, 'agents' in sys.modules, 'openai' in sys.modules)"
    )
    assert run_python(code, tmp_path).split() == ["False", "False", "False"]


@pytest.mark.parametrize(
    ("plugins", "error", "told"),
    [
        ({"nope": {}}, ConfigError, "the plugin 'nope' is not installed"),
        ({"upstream": {}}, ConfigError, "did you mean 'upstreams'?"),
        ({"error_recorder": {"capcity": 1}}, ConfigError, "capcity: unknown key (did you mean 'capacity'?)"),
        ({"error_recorder": {"enabled": "no"}}, ConfigError, "enabled: must be true or false"),
        ({"upstreams": {"default": "x"}}, ConfigError, "unknown upstream 'x'"),
        ({"upstreams": {"a": {}}}, ConfigError, "[plugins.upstreams.a]"),
        ({"upstreams": {"a": {"base_url": "http://u/v1", "api": "x"}}}, ConfigError, "one of: chat, responses"),
    ],
)
def test_a_wrong_table_is_told_exactly(plugins, error, told):
    with pytest.raises(error) as caught:
        build(load_config(environ={}, overrides={"plugins": plugins}))
    assert told in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_one_name_five_places(name):
    [point] = [p for p in entry_points(group="agent_gateway.plugins") if p.name == name]
    assert point.value.partition(":")[0] == f"gateway_plugins.{name}"
    root = Path(__file__).parents[2]
    assert (root / "docs" / "plugins" / f"{name}.md").exists()
    tests = root / "tests" / "plugins"
    assert (tests / f"test_{name}.py").exists() or (tests / name).is_dir()
