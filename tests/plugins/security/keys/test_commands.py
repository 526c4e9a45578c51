"""`agent-gateway keys create`: the printed lines are valid settings."""

import re
import tomllib

import pytest
from click.testing import CliRunner
from gateway_plugins.security.keys.commands import keys_command
from gateway_plugins.security.keys.key_ring import read_keys

from tests.plugins.security.support import settings


def create(*arguments, taken=(), status=0):
    done = CliRunner().invoke(keys_command(taken), ["create", *arguments])
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
