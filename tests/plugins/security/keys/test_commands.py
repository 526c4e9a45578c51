"""`agent-gateway keys create`: the printed lines are valid settings."""

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from gateway_plugins.security.keys.commands import keys_command
from gateway_plugins.security.keys.key_ring import make_key, read_keys
from gateway_plugins.security.keys.key_tables import key_table, save

from gateway_core import ConfigError
from tests.plugins.security.support import settings


def create(*arguments, taken=(), status=0, file=Path("gateway.toml")):
    done = CliRunner().invoke(keys_command(taken, file), ["create", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def key_and_lines(output):
    [key] = re.findall(r"^    (agw_[0-9a-f]{8}_[A-Za-z0-9_-]{43})$", output, re.MULTILINE)
    assert output.count(key) == 1
    lines = output[output.index("[plugins.") :]
    assert key not in lines
    return key, tomllib.loads(lines)["plugins"]["security"]


@pytest.mark.parametrize("name", ["alice", "with space", 'quo"te', "back\\slash", "ü", "a.b", "#x"])
def test_the_printed_lines_configure_the_key(name):
    key, table = key_and_lines(create(name))
    assert list(table["keys"]) == [name]
    found = read_keys(settings(table).keys).find(key.encode())
    assert (found.principal.id, found.principal.admin, found.fault(0.0)) == (name, False, None)
    assert table["keys"][name]["agents"] == ["**"]


def test_options_are_printed_as_settings():
    _, table = key_and_lines(create("a", "--agents", "labs/*", "--agents", "X", "--principal", "ann"))
    own = table["keys"]["a"]
    assert (own["agents"], own["principal"]) == (["labs/*", "X"], "ann")
    _, table = key_and_lines(create("root", "--admin", "--expires", "2999-01-31"))
    own = table["keys"]["root"]
    assert (own["admin"], own["expires"], "agents" in own) == (True, "2999-01-31T00:00:00Z", False)


@pytest.mark.parametrize(("given", "days"), [("90d", 90), ("12h", 0.5), ("30m", 1 / 48)])
def test_a_duration_is_relative_to_now(given, days):
    import time

    key, table = key_and_lines(create("a", "--expires", given))
    found = read_keys(settings(table).keys).find(key.encode())
    assert found.expires == pytest.approx(time.time() + days * 86400, abs=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--expires", "soon"], "neither a duration such as 90d nor a date"),
        (["a", "--expires", "2020-01-01"], "is in the past"),
        (["a", "--expires", "999999d"], "neither a duration such as 90d nor a date"),
        (["a", "--agents", "lab**"], "'**' must be a whole segment"),
        (["a", "--admin", "--agents", "x"], "--admin and --agents cannot be combined"),
        (["a\nb"], "must not be blank or contain control characters"),
        ([""], "must not be blank or contain control characters"),
    ],
)
def test_invalid_arguments_create_no_key(arguments, message):
    output = create(*arguments, status=2)
    assert message in output
    assert "agw_" not in output


def test_a_configured_name_is_rejected():
    output = create("alice", taken=["alice"], status=1)
    assert "--principal alice" in output
    assert "agw_" not in output


@pytest.mark.parametrize(
    "before",
    [None, "", "[server]\nport = 8001\n", "# no line break at the end", "[plugins.security]\nallowed_hosts = []"],
)
def test_a_saved_key_is_added_to_the_file(tmp_path, before):
    file = tmp_path / "gateway.toml"
    if before is not None:
        file.write_text(before)
    output = create("alice", "--agents", "labs/*", "--save", file=file)
    [key] = re.findall(r"^    (agw_\S+)$", output, re.MULTILINE)
    assert output.endswith(f"Its hash was added to {file}.\n")
    text = file.read_text()
    assert text.startswith(before or "")
    assert key not in text
    table = tomllib.loads(text)["plugins"]["security"]
    assert read_keys(settings(table).keys).find(key.encode()).principal.id == "alice"
    assert table["keys"]["alice"]["agents"] == ["labs/*"]


@pytest.mark.parametrize("before", ["plugins = {}\n", "plugins.security.keys = {}\n"])
def test_a_file_that_cannot_be_extended_is_not_changed(tmp_path, before):
    file = tmp_path / "gateway.toml"
    file.write_text(before)
    with pytest.raises(ConfigError, match="cannot add the key"):
        save(key_table("alice", make_key()), file)
    assert file.read_text() == before


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gateway\.toml: cannot be written: .*agent-gateway keys create NAME"):
        save(key_table("alice", make_key()), tmp_path / "missing" / "gateway.toml")
