"""Settings come from the file, the environment and the command line, and errors name the source and the key."""

import attrs
import pytest

from gateway_core.config.settings import MASK, load_config, mask_secrets
from gateway_core.config.values import Bytes, Seconds, Secret
from gateway_core.errors import ConfigError


def test_defaults_need_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(environ={})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.http.max_body == 10 * 1024 * 1024
    assert config.runs.timeout == 600


def test_later_sources_take_precedence(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text("[server]\nport = 1\nhost = 'localhost'\n[runs]\ntimeout = 5\n")
    config = load_config(
        file, environ={"GATEWAY__SERVER__PORT": "2", "GATEWAY__RUNS__TIMEOUT": "2m"}, overrides={"server": {"port": 3}}
    )
    assert (config.server.port, config.server.host, config.runs.timeout) == (3, "localhost", 120)


def test_the_file_in_the_working_directory_is_read(tmp_path, monkeypatch):
    (tmp_path / "gateway.toml").write_text("[server]\nport = 77\n")
    monkeypatch.chdir(tmp_path)
    assert load_config(environ={}).server.port == 77


DEEP = [
    f"a = {'[' * 3000}{']' * 3000}",
    f"a = {'[' * 150}{']' * 150}",
    f"[plugins.x]\na = {'{a = ' * 3000}1{'}' * 3000}",
    f"[plugins.{'.'.join('a' * 3000)}]\na = 1",
    f"plugins.{'.'.join('a' * 150)} = 1",
]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprt = 1", "[server] prt: unknown key (did you mean 'port'?)"),
        ("[server]\nport = 'x'", "[server] port: must be an integer, not 'x'"),
        ("[server]\nport = true", "[server] port: must be an integer, not True"),
        ("[serve]\nport = 1", "unknown table or key 'serve' (did you mean 'server'?)"),
        ("[runs]\ntimeout = '3 parsecs'", "[runs] timeout: not a valid duration: '3 parsecs'"),
        (
            "[runs]\noutput_guardrails = 'x'",
            "[runs] output_guardrails: unsupported value: 'x' (one of: buffer, stream)",
        ),
        ("[http]\ncors_origins = [1]", "[http] cors_origins: must be text, not 1"),
        ("[agents.Spark]\nmodle = 'x'", "[agents.Spark] modle: unknown key (did you mean 'model'?)"),
        ("plugins = 1", "plugins: must be a table, not 1 (write [plugins])"),
        ("[plugins]\nsecurity = 1", "tables, but 'security' is of type int (write [plugins.security])"),
        ("[server", "is not valid TOML"),
        *((text, "is nested more than 100 levels deep") for text in DEEP),
    ],
)
def test_an_error_names_file_table_and_key(tmp_path, text, message):
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, environ={})
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_an_error_in_the_environment_names_the_variable():
    with pytest.raises(ConfigError, match="environment variable GATEWAY__SERVER__PORT"):
        load_config(environ={"GATEWAY__SERVER__PORT": "many"})
    with pytest.raises(ConfigError, match=r"environment variable GATEWAY__PLUGINS__A.*nested more than 100 levels"):
        load_config(environ={f"GATEWAY__PLUGINS{'__A' * 3000}": "1"})


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="file not found"):
        load_config(tmp_path / "nope.toml", environ={})


def test_environment_values_are_parsed_as_the_type_of_the_setting():
    config = load_config(environ={"GATEWAY__HTTP__CORS_ORIGINS": "https://a.example, https://b.example"})
    assert config.http.cors_origins == ["https://a.example", "https://b.example"]


@attrs.frozen
class _Everything:
    secret: Secret
    wait: Seconds = Seconds(1.0)
    size: Bytes = Bytes(1)
    on: bool = True
    names: list[str] = attrs.Factory(list)


def structured(table):
    return load_config(environ={}).structure(table, _Everything, "plugins", "test")


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("10m", 600), ("2h", 7200), ("90d", 7776000)]
)
def test_durations(text, seconds):
    assert structured({"secret": "x", "wait": text}).wait == seconds


@pytest.mark.parametrize(("text", "size"), [("64 KiB", 65536), ("1MB", 1000000), (7, 7), ("7", 7)])
def test_sizes(text, size):
    assert structured({"secret": "x", "size": text}).size == size


def test_secrets_come_from_text_environment_or_file_and_are_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "canary")
    (tmp_path / "key").write_text("canary\n")
    for written in ("canary", {"env": "THE_KEY"}, {"file": str(tmp_path / "key")}):
        settings = structured({"secret": written})
        assert settings.secret.reveal() == "canary"
        assert "canary" not in repr(settings)
        assert "canary" not in str(settings.secret)


def test_an_unset_variable_of_a_secret_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="the environment variable NOT_THERE is not set"):
        structured({"secret": {"env": "NOT_THERE"}})


def test_secrets_are_masked_for_display():
    tables = {
        "plugins": {
            "upstreams": {
                "a": {"api_key": "canary", "headers": {"X-Any": "canary"}, "base_url": "http://shown"},
                "b": {"api_key": {"env": "NAME"}},
            }
        }
    }
    masked = mask_secrets(tables)["plugins"]["upstreams"]
    assert masked["a"] == {"api_key": MASK, "headers": {"X-Any": MASK}, "base_url": "http://shown"}
    assert masked["b"] == {"api_key": {"env": "NAME"}}


def test_agent_settings_are_case_insensitive():
    config = load_config(environ={}, overrides={"agents": {"Spark": {"model": "m"}}})
    assert config.agent("sPARK").model == "m"
    assert config.agent("other").model is None
