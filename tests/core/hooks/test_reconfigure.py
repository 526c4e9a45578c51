"""The configuration is read again while the gateway runs: all of it takes effect, or nothing."""

import asyncio

import openai
import pytest
from attrs import frozen

from gateway_core import ConfigError, hookimpl
from gateway_core.app import build
from gateway_core.config.settings import load_config
from gateway_core.testing import AsgiTransport, gateway_in_memory, script

OFF = {"folder_discovery", "entry_point_discovery", "requirements", "upstreams", "offline_model", "hot_reload"}


@frozen
class Settings:
    word: str = "none"


class Speaking:
    """Takes new settings, unless they say no."""

    Config = Settings

    def __init__(self, gateway, config):
        self.words = [config.word]
        self.reached, self.released = asyncio.Event(), asyncio.Event()

    async def reconfigure(self, config):
        if config.word == "no":
            raise ConfigError("no is no word", source="[plugins.speaking] word")
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
    """Cannot change."""

    Config = Settings

    def __init__(self, gateway, config):
        pass


class OwnReader(Silent):
    """Reads its table by itself, and not too well."""

    class Config:
        @classmethod
        def from_table(cls, table, structure):
            if table:
                raise RuntimeError("secret text")


class Listener:
    heard: list

    def __init__(self, gateway, config):
        self.heard = []

    @hookimpl
    def on_error(self, error):
        self.heard.append(str(error))

    @hookimpl
    def describe(self):
        return {"heard": self.heard}


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
            told = (await client.get("/admin/plugins")).json()
        self.configuration = told["configuration"]
        self.facts = {plugin["name"]: plugin["facts"] for plugin in told["plugins"]}
        self.waiting = [plugin["name"] for plugin in told["plugins"] if plugin["needs_restart"]]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


async def test_core_tables_take_effect_for_what_begins_from_then_on(place):
    async with place.gateway:
        await place.reload(
            "[runs]\nmax_turns = 3\n[http]\nmax_messages = 7\n[catalog]\nshow_broken = true\n[agents.A]\nmodel = 'm'"
        )
        config = place.gateway.config
        assert (config.runs.max_turns, config.http.max_messages, config.catalog.show_broken) == (3, 7, True)
        assert config.agent("a").model == "m"
        assert place.configuration["error"] is None
        assert place.configuration["restart"] == []


async def test_a_reload_that_is_on_when_the_gateway_stops_ends_without_a_word(place):
    speaking = place.gateway.plugins.loaded["speaking"].plugin
    async with place.gateway, asyncio.timeout(5):
        place.write("[plugins.speaking]\nword = 'wait'\n")
        reload = asyncio.create_task(place.gateway.reload())
        await speaking.reached.wait()
    speaking.released.set()
    assert (await asyncio.wait_for(reload, 5)).agents == {}


async def test_limits_of_runs_hold_for_the_next_request(tmp_path, monkeypatch):
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
        with pytest.raises(openai.APIError, match="limit of turns"):
            await g.openai.chat.completions.create(model="X", messages=messages)


async def test_a_plugin_that_can_change_gets_its_new_settings_once(place):
    async with place.gateway:
        await place.reload("[plugins.speaking]\nword = 'hello'")
        await place.reload("[plugins.speaking]\nword = 'hello'")
        assert place.facts["speaking"]["words"] == ["none", "hello"]
        assert place.facts["second"]["words"] == ["none"]


async def test_what_needs_a_restart_is_named_until_it_is_as_it_was(place):
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
        assert place.gateway.config.http.max_messages == 8, "the rest is in force"
        await place.reload("")
        assert (place.configuration["restart"], place.waiting) == ([], [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "is no valid TOML"),
        (f"deep = {'[' * 3000}{']' * 3000}", "is nested more than 100 levels deep"),
        ("[plugins.own_reader]\nword = 'crash'", "cannot read its table: RuntimeError"),
        ("[runs]\nmax_turn = 5", "unknown key"),
        ("[runs]\nmax_turns = 'many'", "must be a whole number"),
        ("[plugins.silent]\nwords = 'x'", "unknown key"),
        ("[plugins.nowhere]", "no plugin 'nowhere' is installed"),
        ("[plugins.second]\nword = 'no'", "no is no word"),
        ("[plugins.second]\nword = 'crash'", "fails in reconfigure: RuntimeError"),
    ],
)
async def test_what_is_wrong_leaves_everything_as_it_was_and_is_told_once(place, text, told):
    async with place.gateway:
        await place.reload("[runs]\nmax_turns = 3")
        rest = "[http]\nmax_messages = 7\n[plugins.speaking]\nword = 'hello'"
        await place.reload(f"{rest}\n{text}")
        await place.reload(f"{rest}\n{text}")
        config = place.gateway.config
        assert (config.runs.max_turns, config.http.max_messages) == (3, 2048)
        assert place.facts["speaking"]["words"][-1] == "none"
        assert told in place.configuration["error"]["message"]
        assert "secret text" not in str(place.configuration)
        [heard] = place.facts["listener"]["heard"]
        assert told in heard
        await place.reload(rest)
        assert place.configuration["error"] is None
        assert place.gateway.config.http.max_messages == 7
        assert place.facts["speaking"]["words"][-1] == "hello"


async def test_a_file_that_was_named_and_is_gone_changes_nothing(place):
    async with place.gateway:
        place.file.unlink()
        await place.gateway.reload()
        assert "there is no such file" in place.gateway.reconfigurer.error.message


async def test_a_file_that_need_not_be_there_may_come_and_go(tmp_path, monkeypatch):
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


async def test_a_secret_in_a_file_is_read_again(tmp_path):
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
