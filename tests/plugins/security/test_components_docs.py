"""The page of the plugin lists the settings with their defaults."""

import re
import tomllib
from pathlib import Path

import attrs
import pytest
from gateway_plugins.security.settings import AuditSettings, LimitSettings, OverrideSettings

from gateway_core import load_config

DOCS = Path(__file__).parents[3] / "docs" / "plugins"
PAGE = DOCS / "security.md"


@pytest.mark.parametrize(
    ("name", "cls"), [("overrides", OverrideSettings), ("limits", LimitSettings), ("audit", AuditSettings)]
)
def test_the_page_lists_every_setting_with_its_default(name, cls):
    section = PAGE.read_text().partition(f"## `[plugins.security.{name}]`")[2].partition("\n## ")[0]
    written = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section, re.MULTILINE))
    assert list(written) == [field.name for field in attrs.fields(cls)]
    table = {key: tomllib.loads(f"value = {value}")["value"] for key, value in written.items()}
    assert load_config(environ={}).structure(table, cls, "plugins", "security", name) == cls()
