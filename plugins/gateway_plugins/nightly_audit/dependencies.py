"""Findings about installed packages: known vulnerabilities from `pip-audit`, and conflicts from `pip check`.

Both run as processes in the gateway's environment. Nothing is installed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import orjson

from gateway_core import Finding, Severity

_TIMEOUT_SECONDS = 180.0
_NOT_CHECKED = "dependencies_not_checked"
# The two lines that `pip check` prints about a requirement.
_MISSING = re.compile(r"(?P<package>\S+ \S+) requires (?P<requirement>\S+), which is not installed\.")
_CONFLICT = re.compile(
    r"(?P<package>\S+ \S+) has requirement (?P<requirement>.+), but you have (?P<name>\S+) (?P<version>\S+)\."
)


def dependency_findings(*, offline: bool = False) -> Iterator[Finding]:
    """Findings about all installed packages.

    Args:
        offline: Skip `pip-audit`, which queries PyPI.
    """
    if not offline:
        yield from _vulnerabilities()
    yield from _conflicts()


def _vulnerabilities() -> Iterator[Finding]:
    tool = _pip_audit()
    if tool is None:
        yield _not_installed("pip-audit", "known vulnerabilities", "pip install pip-audit")
        return
    try:
        done = _run([tool, "--format", "json", "--progress-spinner", "off", "--desc", "off"])
        yield from read_report(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        yield _failed("pip-audit", f"failed: {type(error).__name__}")


def read_report(printed: bytes) -> Iterator[Finding]:
    """Convert the output of `pip-audit --format json` to findings.

    Raises:
        ValueError: The output is not a report of `pip-audit`.
    """
    report = orjson.loads(printed)
    if not isinstance(report, dict) or not isinstance(report.get("dependencies"), list):
        raise ValueError("not a report of pip-audit")
    for package in report["dependencies"]:
        for vulnerability in package.get("vulns", ()):
            fixed = vulnerability.get("fix_versions")
            yield Finding(
                Severity.HIGH,
                "dependency_vulnerable",
                f"{package['name']} {package['version']}",
                f"has the known vulnerability {vulnerability['id']}",
                f"pip install '{package['name']}>={fixed[0]}'" if fixed else "no fixed version is available yet",
            )


def _conflicts() -> Iterator[Finding]:
    if find_spec("pip") is None:
        hint = f"{sys.executable} -m ensurepip, or uv pip install --python {sys.executable} pip"
        yield _not_installed("pip", "conflicts of installed packages", hint)
        return
    try:
        # Isolated: settings of the user, such as `quiet`, do not change the output.
        done = _run([sys.executable, "-m", "pip", "--isolated", "check"])
    except (OSError, subprocess.SubprocessError) as error:
        yield _failed("pip check", f"failed: {type(error).__name__}")
        return
    lines = done.stdout.decode(errors="replace").splitlines() if done.returncode else []
    yield from map(_conflict, filter(str.strip, lines))
    if done.returncode and not lines:
        yield _failed("pip check", f"failed with exit status {done.returncode}")


def _conflict(line: str) -> Finding:
    """Convert a line of `pip check` to a finding. A line of an unknown form becomes the message."""
    if found := _CONFLICT.fullmatch(line):
        message = f"{found['package']} requires {found['requirement']}; version {found['version']} is installed"
        subject, hint = found["name"], f"pip install {shlex.quote(found['requirement'])}"
    elif found := _MISSING.fullmatch(line):
        message = f"{found['package']} requires {found['requirement']}, which is not installed"
        subject, hint = found["requirement"], f"pip install {shlex.quote(found['requirement'])}"
    else:
        subject, message, hint = "pip check", line, None
    return Finding(Severity.MEDIUM, "dependency_outdated", subject, message, hint)


def _not_installed(tool: str, unchecked: str, hint: str) -> Finding:
    return Finding(Severity.INFO, _NOT_CHECKED, tool, f"is not installed; {unchecked} were not checked", hint)


def _failed(tool: str, message: str) -> Finding:
    return Finding(Severity.LOW, _NOT_CHECKED, tool, message, "run it manually to see the reason")


def _pip_audit() -> str | None:
    return shutil.which("pip-audit", path=str(Path(sys.executable).parent)) or shutil.which("pip-audit")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    # pip-audit can be installed in another environment; the variable makes it audit this one. Both tools exit with 1 if
    # they have findings.
    environment = {**os.environ, "PIPAPI_PYTHON_LOCATION": sys.executable}
    return subprocess.run(  # noqa: S603
        list(command),
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
