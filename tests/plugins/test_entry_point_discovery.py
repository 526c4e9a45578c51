"""Agents from entry points of installed packages."""

from gateway_plugins.entry_point_discovery import EntryPointDiscovery

from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.testing import gateway_in_memory, script

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def install(folder, monkeypatch, name, points, version="1.0"):
    """An installed distribution for the import system."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=name, version=version))
    lines = "\n".join(f"{key} = {value}" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[agent_gateway.agents]\n{lines}\n")
    monkeypatch.syspath_prepend(str(folder))
    return info


async def test_installed_agents_are_served_and_a_broken_one_does_not_affect_others(tmp_path, monkeypatch):
    (tmp_path / "installed_for_test.py").write_text(
        "from agents import Agent\nagent = Agent(name='a')\ndef build():\n    return Agent(name='b')\n"
    )
    points = {
        "One": "installed_for_test:agent",
        "labs/Two": "installed_for_test:build",
        "Three": "installed_for_test:nothing",
        "Four": "not_installed_at_all:agent",
        "Five": "installed_for_test",
    }
    install(tmp_path, monkeypatch, "some-agents", points)
    config = {"plugins": {"entry_point_discovery": {"enabled": True}}}
    async with gateway_in_memory(model=script(*["hello"] * 3), config=config) as g:
        catalog = g.gateway.catalog
        assert {"One", "labs/Two", "Five"} <= set(catalog.agents)
        assert {"Three", "Four"} == set(catalog.broken)
        assert "some-agents 1.0 (not_installed_at_all:agent)" in str(catalog.broken["Four"].error)
        for model in ("One", "labs/Two", "Five"):
            answer = await g.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
            assert answer.choices[0].message.content == "hello"


def test_another_version_has_another_digest(tmp_path, monkeypatch):
    def digest():
        found = {entry.id: entry for entry in EntryPointDiscovery(NullGateway(), None).discover_agents()}
        return found["One"].digest

    info = install(tmp_path, monkeypatch, "some-agents", {"One": "x:y"})
    first = digest()
    assert digest() == first
    (info / "METADATA").write_text(METADATA.format(name="some-agents", version="2.0"))
    assert digest() != first


async def test_no_distribution_is_suggested_for_a_missing_module_of_an_installed_package(tmp_path, monkeypatch):
    """Also when the package, or its missing module, has the name of a known distribution's module."""
    for package in ("acme_of_test", "newspaper", "pyautogui"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "acme_of_test" / "inner.py").write_text("from newspaper.runtime import x")
    points = {
        "A": "acme_of_test.missing:agent",
        "B": "newspaper.missing:agent",
        "C": "acme_of_test.inner:agent",
        "D": "emoji:agent",
        "E": "emoji.agents:agent",
        "F": "pyautogui.server:agent",
    }
    info = install(tmp_path, monkeypatch, "acme-agents", points)
    (info / "RECORD").write_text("acme_of_test/__init__.py,,\nnewspaper/__init__.py,,\n")
    async with gateway_in_memory(config={"plugins": {"entry_point_discovery": {"enabled": True}}}) as g:
        broken = {name: str(failure.error) for name, failure in g.gateway.catalog.broken.items()}
    assert set(points) <= set(broken)
    for name in points:
        assert "pip" not in broken[name]
        assert "agent's folder" not in broken[name]
    assert "the installed acme-agents has no module 'acme_of_test.missing'" in broken["A"]
    assert "the installed acme-agents has no module 'newspaper.runtime'" in broken["C"]
    assert "repair or remove the package whose entry point names it" in broken["D"]
    assert "the installed package pyautogui has no module 'pyautogui.server'" in broken["F"]


async def test_a_known_distribution_is_suggested_for_a_module_that_an_installed_package_imports(tmp_path, monkeypatch):
    (tmp_path / "acme_importer.py").write_text("import docx")
    install(tmp_path, monkeypatch, "acme-agents", {"A": "acme_importer:agent"})
    async with gateway_in_memory(config={"plugins": {"entry_point_discovery": {"enabled": True}}}) as g:
        assert g.gateway.catalog.broken["A"].error.hint == "pip install python-docx"
