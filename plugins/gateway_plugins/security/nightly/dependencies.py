"""What is installed: known problems, as far as `pip-audit` knows them; else what does not fit what is asked for.

It installs nothing, and without `pip-audit` it asks nobody.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import orjson
from packaging.requirements import InvalidRequirement, Requirement

from gateway_plugins.security.nightly.findings import Finding, Severity

Runner = Callable[[Sequence[str]], bytes]
"""Runs a command and returns what it printed; raises `OSError` or `subprocess.SubprocessError`."""

_SECONDS = 180.0
_GROUPS = ("agent_gateway.agents", "agent_gateway.plugins")


def check_dependencies(*, offline: bool = False, runner: Runner | None = None) -> Iterator[Finding]:
    """All findings about what is installed.

    Args:
        offline: Leave `pip-audit` alone, which asks PyPI.
        runner: Starts it; a real process unless given.
    """
    tool = None if offline else _pip_audit()
    if tool is None:
        yield from outdated_pins(list(distributions()))
        if not offline:
            yield Finding(
                Severity.INFO,
                "dependencies_not_checked",
                "pip-audit",
                "is not installed, so known problems of dependencies were not looked for",
                "pip install pip-audit",
            )
        return
    command = [tool, "--format", "json", "--progress-spinner", "off", "--desc", "off"]
    try:
        printed = (runner or _run)(command)
        yield from known_problems(printed)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        yield Finding(
            Severity.LOW,
            "dependencies_not_checked",
            "pip-audit",
            f"did not come to an end: {type(error).__name__}",
            "run it by hand to see why",
        )
        yield from outdated_pins(list(distributions()))


def known_problems(printed: bytes) -> Iterator[Finding]:
    """What `pip-audit --format json` printed, as findings.

    Raises:
        ValueError: It is none of its reports.
    """
    report = orjson.loads(printed)
    if not isinstance(report, dict) or not isinstance(report.get("dependencies"), list):
        raise ValueError("no report of pip-audit")
    for package in report["dependencies"]:
        for problem in package.get("vulns", ()):
            yield Finding(
                Severity.HIGH,
                "dependency_vulnerable",
                f"{package['name']} {package['version']}",
                f"has a known problem: {problem['id']}",
                _fix(package["name"], problem.get("fix_versions") or []),
            )


def outdated_pins(installed: Sequence[Distribution]) -> Iterator[Finding]:
    """Where what the gateway, its plugins and its installed agents ask for is not what is installed."""
    versions = {_normal(d.name): d.version for d in installed if d.metadata["Name"]}
    for distribution in installed:
        if _normal(distribution.name) != "agent-gateway" and not any(
            point.group in _GROUPS for point in distribution.entry_points
        ):
            continue
        for text in distribution.requires or ():
            yield from _unmet(distribution.name, text, versions)


def _unmet(asking: str, text: str, versions: dict[str, str]) -> Iterator[Finding]:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return
    version = versions.get(_normal(wanted.name))
    if version is None or not wanted.specifier.contains(version, prereleases=True):
        yield Finding(
            Severity.MEDIUM,
            "dependency_outdated",
            wanted.name,
            f"{asking} asks for {wanted}, and {version or 'none'} is installed",
            f"pip install '{wanted}'",
        )


def _fix(name: str, versions: Sequence[Any]) -> str:
    return f"pip install '{name}>={versions[0]}'" if versions else "there is no version without it yet"


def _pip_audit() -> str | None:
    beside = shutil.which("pip-audit", path=str(Path(sys.executable).parent))
    return beside or shutil.which("pip-audit")


def _run(command: Sequence[str]) -> bytes:
    # It may be installed in an environment of its own, and is to look at ours. It exits with 1 when it finds something.
    environment = {**os.environ, "PIPAPI_PYTHON_LOCATION": sys.executable}
    done = subprocess.run(  # noqa: S603
        list(command), capture_output=True, timeout=_SECONDS, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    return done.stdout


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
