"""Each plugin can be switched off, and each can be the only one: a gateway still starts, and what is left works."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from agents import Agent

from gateway_core.app import build
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError, PluginError
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
        ({"nope": {}}, PluginError, "the plugin 'nope' is not installed"),
        ({"upstream": {}}, PluginError, "did you mean 'upstreams'?"),
        ({"error_recorder": {"capcity": 1}}, ConfigError, "capcity: unknown key (did you mean 'capacity'?)"),
        ({"error_recorder": {"enabled": "no"}}, ConfigError, "enabled: must be true or false"),
        ({"upstreams": {"default": "x"}}, ConfigError, "unknown upstream 'x'"),
        ({"upstreams": {"a": {}}}, ConfigError, "[plugins.upstreams.a]"),
        ({"upstreams": {"a": {"base_url": "u", "api": "x"}}}, ConfigError, "one of: chat, responses"),
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
