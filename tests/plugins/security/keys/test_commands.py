"""`agent-gateway keys create`: what it prints can be pasted, and works."""

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
def test_the_lines_make_the_key_good(name):
    key, table = key_and_lines(create(name))
    assert list(table["keys"]) == [name]
    found = read_keys(settings(table).keys).find(key.encode())
    assert (found.principal.id, found.principal.admin, found.fault(0.0)) == (name, False, None)
    assert table["keys"][name]["agents"] == ["**"]


def test_options_become_lines():
    _, table = key_and_lines(create("a", "--agents", "labs/*", "--agents", "X", "--principal", "ann"))
    own = table["keys"]["a"]
    assert (own["agents"], own["principal"]) == (["labs/*", "X"], "ann")
    _, table = key_and_lines(create("root", "--admin", "--expires", "2999-01-31"))
    own = table["keys"]["root"]
    assert (own["admin"], own["expires"], "agents" in own) == (True, "2999-01-31T00:00:00Z", False)


@pytest.mark.parametrize(("given", "days"), [("90d", 90), ("12h", 0.5), ("30m", 1 / 48)])
def test_a_time_is_counted_from_now(given, days):
    import time

    key, table = key_and_lines(create("a", "--expires", given))
    found = read_keys(settings(table).keys).find(key.encode())
    assert found.expires == pytest.approx(time.time() + days * 86400, abs=60)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "--expires", "soon"], "no time such as 90d"),
        (["a", "--expires", "2020-01-01"], "is over already"),
        (["a", "--expires", "999999d"], "no time such as 90d"),
        (["a", "--agents", "lab*"], "a '*' stands for a whole segment"),
        (["a", "--admin", "--agents", "x"], "uses no agents"),
        (["a\nb"], "no control characters"),
        ([""], "must have letters"),
    ],
)
def test_what_cannot_be_meant_makes_no_key(arguments, told):
    output = create(*arguments, status=2)
    assert told in output
    assert "agw_" not in output


def test_a_name_is_taken_once():
    output = create("alice", taken=["alice"], status=1)
    assert "--principal alice" in output
    assert "agw_" not in output
