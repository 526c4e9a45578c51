"""Each private name of a dependency, removed in a child process, is reported by name with a cure."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gateway_core.sdk import compat

ROOT = Path(__file__).resolve().parents[3]

# Removes each name in a separate fork, so that the dependencies are imported once, and runs the real command there.
SCRIPT = """
import importlib, io, json, os, sys
from gateway_core.sdk import compat
compat.check()

def remove(path):
    module, _, attributes = path.partition(":")
    owner = importlib.import_module(module)
    *owners, last = attributes.split(".")
    for name in owners:
        outer, owner = owner, getattr(owner, name)
    if callable(owner) and not isinstance(owner, type):
        setattr(outer, owners[-1], lambda self: None)
        return
    getattr(owner, "__dataclass_fields__", {}).pop(last, None)
    for cls in getattr(owner, "__mro__", (owner,)):
        if last in vars(cls):
            delattr(cls, last)
    if owners and last in getattr(getattr(owner.__init__, "__code__", None), "co_names", ()):
        owner.__init__ = lambda self: None

def command(arguments):
    from gateway_core import cli
    sys.argv = ["agent-gateway", *arguments]
    sys.stdout = sys.stderr = output = io.StringIO()
    try:
        cli.main()
        status = 0
    except SystemExit as error:
        status = error.code
    return status, output.getvalue()

seen = {}
for name in compat.NAMES:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        remove(name.path)
        os.write(write, json.dumps(command(sys.argv[1:])).encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:
        seen[name.path] = json.loads(file.read())
    os.waitpid(child, 0)
print(json.dumps(seen))
"""


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_name_that_is_missing_is_reported_with_its_cure(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, command], capture_output=True, text=True, timeout=110, cwd=tmp_path, check=True
    )
    seen = json.loads(done.stdout)
    assert set(seen) == {name.path for name in compat.NAMES}
    for name in compat.NAMES:
        status, output = seen[name.path]
        assert status == 78, (name.path, output)
        assert len(output.strip().splitlines()) == 1, output
        assert name.path in output
        assert f"{name.distribution} {compat.installed(name.distribution)}: lacks" in output
        assert re.search(rf"pip install '{name.distribution}\S+'", output), output


def test_every_distribution_with_a_private_name_has_a_range():
    stated = {each.name: each for each in map(Requirement, requires("agent-gateway") or ())}
    for distribution in {name.distribution for name in compat.NAMES}:
        assert "<" in str(stated[distribution].specifier) or "==" in str(stated[distribution].specifier)


def test_private_attributes_of_the_sdk_are_reached_in_one_module():
    """Checks the core only: plugins may not import the module, but their names are listed there, too."""
    private = {name.path.rpartition(".")[2].rpartition(":")[2] for name in compat.NAMES}
    # Wrappers of models, and the kept sandbox sessions, override these methods.
    overridden = {"_cleanup_on_run_end", "_aclose_dependencies"}
    private = {name for name in private if name.startswith("_") and not name.startswith("__")} - overridden
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "gateway_core").rglob("*.py")
        for name in private
        if re.search(rf"(?<!self)(?<!cls)(?:\.|\"){name}\b", path.read_text())
    }
    assert found <= {
        "gateway_core/sdk/compat.py",
        "gateway_core/sdk/global_settings.py",
        "gateway_core/sdk/patches.py",
    }


def test_every_import_is_declared():
    stated = {re.sub(r"[-_.]+", "-", Requirement(text).name).lower() for text in requires("agent-gateway") or ()}
    distributions = packages_distributions()
    own = {"gateway_core", "gateway_plugins"}
    undeclared = set()
    for root in ("gateway_core", "plugins/gateway_plugins"):
        for path in (ROOT / root).rglob("*.py"):
            if "templates" in path.parts or path.name == "pytest_plugin.py":
                continue
            for top in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE):
                if top in own or top in sys.stdlib_module_names or top not in distributions:
                    continue
                names = {re.sub(r"[-_.]+", "-", name).lower() for name in distributions[top]}
                if not names & stated:
                    undeclared.add(f"{path.name}: {top} ({', '.join(sorted(names))})")
    assert not undeclared
