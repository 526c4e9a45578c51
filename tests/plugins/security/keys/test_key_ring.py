"""Keys: creation, settings, headers and expiry warnings; keys are compared in constant time only."""

import ast
import logging
from pathlib import Path

import pytest
from gateway_plugins.security.keys.admin_keys import refusal
from gateway_plugins.security.keys.credentials import presented
from gateway_plugins.security.keys.expiry import ExpiryWarnings
from gateway_plugins.security.keys.key_ring import Key, KeyRing, make_key, moment, read_keys

from gateway_core import AuthenticationError, Principal
from tests.plugins.security.support import key_table, settings

NOW = 1_800_000_000.0
DAY = 86400.0


def ring(**keys):
    return read_keys(settings({"keys": keys}).keys)


def test_a_key_is_random_and_stored_as_a_hash():
    keys = [make_key() for _ in range(100)]
    assert len({key.text for key in keys}) == len({key.id for key in keys}) == 100
    for key in keys:
        assert key.text.startswith(f"{key.id}_")
        assert len(key.text) == 4 + 8 + 1 + 43
        assert key.hash.startswith("sha256:")
        assert key.text[13:] not in key.hash


def test_only_the_exact_key_is_found():
    key = make_key()
    found = ring(ann=key_table(key, principal="Ann"))
    assert found.find(key.text.encode()).principal == Principal("Ann", False, key.id)
    digest = key.hash.removeprefix("sha256:")
    for wrong in (key.text[:-1], key.text + "x", key.text.upper(), key.id, key.hash, digest, "", bytes.fromhex(digest)):
        assert found.find(wrong if isinstance(wrong, bytes) else wrong.encode()) is None


def test_the_default_principal_is_the_name_of_the_table():
    first, second = make_key(), make_key()
    found = ring(laptop=key_table(first, principal="ann"), ann=key_table(second))
    assert {found.find(key.text.encode()).principal.id for key in (first, second)} == {"ann"}


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"authorization", b"Bearer k")], b"k"),
        ([(b"authorization", b"bearer   k ")], b"k"),
        ([(b"x-api-key", b" k ")], b"k"),
        ([(b"authorization", b"Bearer k"), (b"x-api-key", b"k")], b"k"),
        ([(b"authorization", b""), (b"x-api-key", b"k")], b"k"),
        ([(b"authorization", b"Bearer "), (b"x-api-key", b"")], None),
        ([(b"cookie", b"k")], None),
        ([(b"authorization", "Bearer ключ".encode())], "ключ".encode()),
    ],
)
def test_a_key_is_read_from_either_header(headers, key):
    assert presented(headers) == key


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer k"), (b"x-api-key", b"l")],
        [(b"authorization", b"Bearer k"), (b"authorization", b"Bearer l")],
        [(b"x-api-key", b"k"), (b"x-api-key", b"l")],
        [(b"authorization", b"Basic k")],
        [(b"authorization", b"Basic x"), (b"x-api-key", b"k")],
        [(b"authorization", b"k")],
        [(b"x-api-key", b"k" * 513)],
    ],
)
def test_conflicting_and_malformed_keys_are_rejected(headers):
    with pytest.raises(AuthenticationError) as caught:
        presented(headers)
    assert caught.value.status == 401


def key(expires=None, **more):
    return Key("a", "agw_a", b"", Principal("ann"), expires, **more)


@pytest.mark.parametrize(
    ("of", "fault"),
    [
        (key(), None),
        (key(NOW + 1), None),
        (key(NOW), "expired"),
        (key(NOW - 1), "expired"),
        (key(NOW + 1, disabled=True), "disabled"),
    ],
)
def test_a_key_is_valid_until_it_expires(of, fault):
    assert of.fault(NOW) == fault


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15", NOW - 8 * 3600),
    ],
)
def test_a_date_without_an_offset_is_utc(text, seconds):
    assert moment(text) == seconds


def test_expiry_is_logged_daily_from_seven_days_before(caplog):
    warnings, expires = ExpiryWarnings(), NOW + 30 * DAY
    keys = [key(expires), key(), key(expires, disabled=True)]
    days = []
    with caplog.at_level(logging.WARNING):
        for hour in range(31 * 24):
            caplog.clear()
            warnings.check(keys, NOW + hour * 3600)
            days += [hour / 24] * len(caplog.records)
    assert len(days) == 7
    assert 23 < days[0] < 23.1


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("GET", "/admin/agents", {"read"}),
        ("HEAD", "/admin/agents", {"read"}),
        ("GET", "/security/override", {"read"}),
        ("POST", "/security/preview", {"read"}),
        ("POST", "/admin/reload", {"reload"}),
        ("POST", "/security/override", {"override"}),
        ("DELETE", "/security/override/ovr_1", {"override"}),
        ("POST", "/security/override_all", set()),
        ("DELETE", "/admin/agents", set()),
    ],
)
def test_a_scope_covers_only_its_routes(method, path, scopes):
    for scope in ("read", "reload", "override"):
        admin = Key("a", "agw_a", b"", Principal("root", True), scopes=frozenset({scope}))
        assert (refusal(admin, method, path, may_chat=False) is None) is (scope in scopes)
    unlimited = Key("a", "agw_a", b"", Principal("root", True))
    assert refusal(unlimited, method, path, may_chat=False) is None


@pytest.mark.parametrize("path", ["/v1", "/v1/models", "/v1/chat/completions", "/v1/unknown/route"])
def test_an_admin_key_is_not_for_the_api(path):
    admin = Key("a", "agw_a", b"", Principal("root", True))
    assert refusal(admin, "POST", path, may_chat=False) is not None
    assert refusal(admin, "POST", path, may_chat=True) is None
    assert refusal(key(), "POST", path, may_chat=False) is None


def test_keys_are_never_compared_with_equality():
    """`==` stops at the first difference, so its duration reveals how much of a guess is correct."""
    secret = {"digest", "text", "presented", "hash"}
    package = Path(KeyRing.find.__code__.co_filename).parent
    for name in ("key_ring.py", "credentials.py", "../__init__.py"):
        for node in ast.walk(ast.parse((package / name).read_text())):
            if not isinstance(node, ast.Compare):
                continue
            if not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                continue
            named = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            named |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            assert not named & secret, f"{name}:{node.lineno}"
