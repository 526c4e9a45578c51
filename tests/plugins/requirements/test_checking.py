"""Requirements are compared with what is really installed: versions, extras, markers, Python."""

from importlib.metadata import version
from pathlib import Path

import pytest
from gateway_plugins.requirements.checking import check, check_python
from gateway_plugins.requirements.declarations import Declaration, Declared, Location, PythonRequirement
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

HERE = Location(Path("requirements.txt"), 1, "")
ATTRS = version("attrs")


def states(*requirements, constraints=()):
    def declared(texts):
        return tuple(Declared(Requirement(text), HERE) for text in texts)

    declaration = Declaration("A", Path("a.py"), requirements=declared(requirements), constraints=declared(constraints))
    return [state for _, state in check(declaration)]


@pytest.mark.parametrize(
    "text", ["attrs", "ATTRS", "attrs>=20", f"attrs=={ATTRS}", "typing.extensions", "attrs>=20.dev0"]
)
def test_what_is_installed_is_ok(text):
    assert states(text) == ["ok"]


def test_what_is_missing_or_of_another_version_is_reported():
    assert states("no-such-project-here>=1", "attrs<1") == ["missing", f"conflicts with installed attrs {ATTRS}"]


def test_a_requirement_whose_marker_does_not_hold_counts_for_nothing():
    assert states("no-such-project-here; python_version < '3'", "attrs; python_version >= '3'") == ["ok"]


def test_constraints_limit_what_is_required_and_ask_for_nothing():
    assert states("attrs", constraints=["attrs<1"]) == [f"conflicts with installed attrs {ATTRS}"]
    assert states("attrs", constraints=["no-such-project-here==1"]) == ["ok"]


def test_an_extra_brings_its_own_requirements():
    assert states("openai[aiohttp]") == ["ok"]
    [state] = states("openai[datalib]")
    assert state.startswith("missing: its extra requires ")


def make_distribution(folder, name, version, *needs):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    extras = "".join(f"Provides-Extra: {extra}\n" for extra in ("all", "deep", "loop"))
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}"
    (info / "METADATA").write_text(text + "".join(f"Requires-Dist: {need}\n" for need in needs))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    make_distribution(
        tmp_path,
        "outer_one",
        "1.0",
        "base-need>1",
        "outer-one[deep]; extra == 'all'",
        "inner-one[deep]>=1; extra == 'deep'",
        "outer-one[loop]; extra == 'loop'",
        "not a requirement at all!",
    )
    make_distribution(tmp_path, "inner_one", "1.5", "absent-leaf>=2; extra == 'deep'")
    make_distribution(tmp_path, "early", "2.0rc1")
    make_distribution(tmp_path, "strange", "not-a-version")


def test_extras_are_followed_all_the_way_down(installed):
    assert states("outer-one", "inner-one", "outer-one[loop]") == ["ok", "ok", "ok"]
    expected = 'missing: its extra requires absent-leaf>=2; extra == "deep"'
    assert states("inner-one[deep]", "outer-one[deep]", "outer-one[all]") == [expected] * 3


def test_an_installed_prerelease_counts_as_the_version_that_it_is(installed):
    assert states("early>=1", "early>=2") == ["ok", "conflicts with installed early 2.0rc1"]


def test_a_version_that_is_none_satisfies_only_who_does_not_care(installed):
    assert states("strange", "strange>=1") == ["ok", "conflicts with installed strange not-a-version"]


def test_the_python_that_runs():
    assert check_python(Declaration("A", Path("a.py"))) is None
    for text, fits in ((">=3.11", True), (">=4", False)):
        declaration = Declaration("A", Path("a.py"), python=PythonRequirement(SpecifierSet(text), HERE))
        assert (check_python(declaration) is None) is fits
