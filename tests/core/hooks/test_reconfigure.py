"""The configuration reloads at run time, atomically."""

import asyncio

import openai
import pytest
from attrs import evolve, frozen

from gateway_core import ConfigError, hookimpl
from gateway_core.app import build
from gateway_core.config.settings import load_config
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.plugin_loader import PluginInfo, Plugins
from gateway_core.hooks.reconfigure import Reconfigurer
from gateway_core.testing import AsgiTransport, gateway_in_memory, script

OFF = {"folder_discovery", "entry_point_discovery", "requirements", "upstreams", "offline_model", "hot_reload"}


@frozen
class Settings:
    word: str = "none"


class Speaking:
    """Applies new settings, except the word `no`."""

    Config = Settings

    def __init__(self, gateway, config):
        self.words = [config.word]
        self.reached, self.released = asyncio.Event(), asyncio.Event()

    async def reconfigure(self, config):
        if config.word == "no":
            raise ConfigError("not a valid word", source="[plugins.speaking] word")
        if config.word == "crash":
            raise RuntimeError("secret text")
        if config.word == "wait":
            self.reached.set()
            await self.released.wait()
        self.words.append(config.word)

    @hookimpl
    def describe(self):
        return {"words": self.words}


class Second(Speaking):
    pass


class Silent:
    """Does not support reconfiguration."""

    Config = Settings

    def __init__(self, gateway, config):
        pass


class OwnReader(Silent):
    """Parses its table with `from_table`, which raises."""

    class Config:
        @classmethod
        def from_table(cls, table, structure):
            if table:
                raise RuntimeError("secret text")


class Listener:
    errors: list

    def __init__(self, gateway, config):
        self.errors = []

    @hookimpl
    def on_error(self, error):
        self.errors.append(str(error))

    @hookimpl
    def describe(self):
        return {"errors": self.errors}


class Place:
    def __init__(self, tmp_path):
        self.file = tmp_path / "gateway.toml"
        self.write("")
        config = load_config(self.file, environ={})
        plugins = {
            "speaking": Speaking,
            "second": Second,
            "silent": Silent,
            "own_reader": OwnReader,
            "listener": Listener,
        }
        self.app = build(config, plugins=plugins)
        self.gateway = self.app.state.gateway

    def write(self, text):
        off = "".join(f"[plugins.{name}]\nenabled = false\n" for name in OFF)
        self.file.write_text(f"{off}{text}\n")

    async def reload(self, text):
        self.write(text)
        await self.gateway.reload()
        import httpx2

        async with httpx2.AsyncClient(transport=AsgiTransport(self.app), base_url="http://localhost") as client:
            page = (await client.get("/admin/plugins")).json()
        self.configuration = page["configuration"]
        self.facts = {plugin["name"]: plugin["facts"] for plugin in page["plugins"]}
        self.waiting = [plugin["name"] for plugin in page["plugins"] if plugin["needs_restart"]]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


async def test_core_tables_take_effect(place):
    async with place.gateway:
        await place.reload(
            "[runs]\nmax_turns = 3\n[http]\nmax_messages = 7\n[catalog]\nshow_broken = true\n[agents.A]\nmodel = 'm'"
        )
        config = place.gateway.config
        assert (config.runs.max_turns, config.http.max_messages, config.catalog.show_broken) == (3, 7, True)
        assert config.agent("a").model == "m"
        assert place.configuration["error"] is None
        assert place.configuration["restart"] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[runs]\nmax_turns = 3\n[agents.A]\nmodel = 'm'", "reloaded the configuration: [runs], [agents.A]"),
        ("[plugins.speaking]\nword = 'secret-canary'", "reloaded the configuration: [plugins.speaking]"),
        ("# a comment", "reloaded the configuration"),
        ("[server]\nport = 1", "restart the gateway to apply [server] port"),
        ("[plugins.silent]\nword = 'x'", "restart the gateway to apply [plugins.silent]"),
    ],
)
async def test_a_reload_logs_the_changed_tables_once(place, text, line, caplog):
    caplog.set_level("INFO")
    async with place.gateway:
        await place.reload(text)
        await place.gateway.reload()
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("reconfigure")]
    assert messages.count(line) == 1
    assert len(messages) == 1 + line.startswith("restart")
    assert "canary" not in caplog.text


async def test_a_reload_in_progress_at_shutdown_ends_without_error(place):
    speaking = place.gateway.plugins.loaded["speaking"].plugin
    async with place.gateway, asyncio.timeout(5):
        place.write("[plugins.speaking]\nword = 'wait'\n")
        reload = asyncio.create_task(place.gateway.reload())
        await speaking.reached.wait()
    speaking.released.set()
    assert (await asyncio.wait_for(reload, 5)).agents == {}


async def test_limits_of_runs_apply_to_the_next_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from agents import Agent, function_tool

    from gateway_core.testing import call

    @function_tool
    def again() -> str:
        """Again."""
        return "again"

    agent = Agent(name="x", tools=[again], model=script(call("again"), call("again"), "done", call("again"), "never"))
    messages = [{"role": "user", "content": "hi"}]
    async with gateway_in_memory({"X": agent}) as g:
        answer = await g.openai.chat.completions.create(model="X", messages=messages)
        assert answer.choices[0].message.content == "done"
        (tmp_path / "gateway.toml").write_text("[runs]\nmax_turns = 1")
        await g.gateway.reload()
        with pytest.raises(openai.APIError, match="exceeded max_turns"):
            await g.openai.chat.completions.create(model="X", messages=messages)


async def test_a_plugin_is_reconfigured_once_per_change(place):
    async with place.gateway:
        await place.reload("[plugins.speaking]\nword = 'hello'")
        await place.reload("[plugins.speaking]\nword = 'hello'")
        assert place.facts["speaking"]["words"] == ["none", "hello"]
        assert place.facts["second"]["words"] == ["none"]


async def test_settings_that_require_a_restart_are_listed_until_reverted(place):
    async with place.gateway:
        await place.reload(
            "[server]\nport = 9999\n[state]\nfolder = 'x'\n[http]\ncors_origins = ['*']\nmax_messages = 8\n"
            "[plugins.silent]\nword = 'x'\n[plugins.listener]\nenabled = false"
        )
        assert place.configuration["restart"] == [
            "[server] port",
            "[state] folder",
            "[http] cors_origins",
            "[plugins.silent]",
            "[plugins.listener] enabled",
        ]
        assert place.waiting == ["silent", "listener"]
        assert place.gateway.config.server.port == 8000
        assert place.gateway.config.http.max_messages == 8, "the other settings take effect"
        await place.reload("")
        assert (place.configuration["restart"], place.waiting) == ([], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is not valid TOML"),
        (f"deep = {'[' * 3000}{']' * 3000}", "is nested more than 100 levels deep"),
        ("[plugins.own_reader]\nword = 'crash'", "cannot parse its table: RuntimeError"),
        ("[runs]\nmax_turn = 5", "unknown key"),
        ("[runs]\nmax_turns = 'many'", "must be an integer"),
        ("[plugins.silent]\nwords = 'x'", "unknown key"),
        ("[plugins.nowhere]", "the plugin 'nowhere' is not installed"),
        ("[plugins.second]\nword = 'no'", "not a valid word"),
        ("[plugins.second]\nword = 'crash'", "failed in reconfigure: RuntimeError"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_reported_once(place, text, message):
    async with place.gateway:
        await place.reload("[runs]\nmax_turns = 3")
        rest = "[http]\nmax_messages = 7\n[plugins.speaking]\nword = 'hello'"
        await place.reload(f"{rest}\n{text}")
        await place.reload(f"{rest}\n{text}")
        config = place.gateway.config
        assert (config.runs.max_turns, config.http.max_messages) == (3, 2048)
        assert place.facts["speaking"]["words"][-1] == "none"
        assert message in place.configuration["error"]["message"]
        assert "secret text" not in str(place.configuration)
        [reported] = place.facts["listener"]["errors"]
        assert message in reported
        await place.reload(rest)
        assert place.configuration["error"] is None
        assert place.gateway.config.http.max_messages == 7
        assert place.facts["speaking"]["words"][-1] == "hello"


async def test_a_missing_file_given_by_name_changes_nothing(place):
    async with place.gateway:
        place.file.unlink()
        await place.gateway.reload()
        assert "file not found" in place.gateway.reconfigurer.error.message


async def test_an_optional_file_can_be_created_and_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = {"plugins": {name: {"enabled": False} for name in OFF}}
    app = build(load_config(environ={}, overrides=tables))
    async with app.state.gateway as gateway:
        monkeypatch.chdir("/")
        (tmp_path / "gateway.toml").write_text("[runs]\nmax_turns = 4")
        await gateway.reload()
        assert gateway.config.runs.max_turns == 4
        (tmp_path / "gateway.toml").unlink()
        await gateway.reload()
        assert gateway.config.runs.max_turns == 10


async def test_a_secret_in_a_file_is_reloaded(tmp_path):
    from gateway_core import Secret

    @frozen
    class Keyed:
        key: Secret

    class WithKey(Speaking):
        Config = Keyed

        def __init__(self, gateway, config):
            self.words = [config.key.reveal()]

        def reconfigure(self, config):
            self.words.append(config.key.reveal())

    secret = tmp_path / "key"
    secret.write_text("old")
    tables = {"plugins": {**{name: {"enabled": False} for name in OFF}, "keyed": {"key": {"file": str(secret)}}}}
    app = build(load_config(environ={}, overrides=tables), plugins={"keyed": WithKey})
    async with app.state.gateway as gateway:
        secret.write_text("new")
        await gateway.reload()
        assert gateway.hooks.describe()["keyed"]["words"] == ["old", "new"]


@pytest.mark.parametrize("source", ["file", "secret", "environment"])
async def test_the_configuration_is_read_again_only_if_a_source_changed(tmp_path, source):
    environ = {"GATEWAY_RUNS__MAX_TURNS": "3"}
    secret, file = tmp_path / "secret.txt", tmp_path / "gateway.toml"
    secret.write_text("one")
    file.write_text(f'[plugins.upstreams.x]\nbase_url = "http://127.0.0.1:1/v1"\napi_key = {{ file = "{secret}" }}\n')
    config = load_config(file, environ=environ)
    reads = []

    def reread():
        reads.append(1)
        return config.reread()

    applied, rejected = [], []
    infos = tuple(PluginInfo(name, enabled=False, source="a test") for name in config.plugins)
    plugins = Plugins(Hooks({}), {}, infos)
    reconfigurer = Reconfigurer(evolve(config, reread=reread), plugins, applied.append, rejected.append)
    await reconfigurer.read_again()
    assert (reads, applied, rejected) == ([], [], [])
    match source:
        case "file":
            file.write_text(file.read_text() + "[runs]\nmax_tool_calls = 7\n")
        case "secret":
            secret.write_text("another")
        case "environment":
            environ["GATEWAY_RUNS__MAX_TURNS"] = "4"
    await reconfigurer.read_again()
    assert (reads, rejected) == ([1], [])
    [new] = applied
    assert new.sources() == new.read_from
