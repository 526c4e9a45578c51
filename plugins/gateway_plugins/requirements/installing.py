"""Resolves and installs with uv: the agents' requirements, together with the gateway's own.

uv reads files that are written here from the parsed lines, never an agent's file.
"""

import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import uv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway_plugins.requirements.checking import GATEWAY, needs_of_the_gateway
from gateway_plugins.requirements.declarations import Declaration, hide_credentials

_WORD = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
_PIP_SETTINGS = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"}
_UV_SETTINGS = {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE"}

PROGRESS_SECONDS = 10.0

logger = logging.getLogger(__name__)


class InstallError(Exception):
    """uv cannot install. The arguments are lines: the cause, the requirements that it concerns, and what to do."""


def install(
    chosen: Sequence[Declaration],
    others: Sequence[Declaration],
    *,
    allow_source: bool,
    dry_run: bool,
    report: Callable[[str], None],
) -> None:
    """Installs what agents declare into the environment of the running Python; everything is resolved first.

    Args:
        chosen: The agents to install for; without rejected lines.
        others: Other agents in the same environment, whose requirements and constraints limit the versions.
        allow_source: Whether packages may be built from source, which runs their code.
        dry_run: Only resolve.
        report: Receives each line of uv's output.

    Raises:
        InstallError: Requirements conflict, a package is not found, or the installation fails.
    """
    ignored = _PIP_SETTINGS & os.environ.keys()
    if ignored and not _UV_SETTINGS & os.environ.keys():
        logger.warning(
            "uv does not read %s; see docs/plugins/requirements.md for its own settings", ", ".join(sorted(ignored))
        )
    required = [[one for one in agent.requirements if one.applies] for agent in chosen]
    # uv requires hashes of all packages or of none, so the agents with hashes are installed in a separate step.
    hashed = [one for ones in required if any(one.hashes for one in ones) for one in ones]
    limits = [one for agent in others for one in agent.requirements]
    limits += [one for agent in [*chosen, *others] for one in agent.constraints]
    files = {
        "hashed.txt": [one.line for one in hashed],
        "requirements.txt": [*(one.line for ones in required for one in ones), *map(str, needs_of_the_gateway())],
        "constraints.txt": [f"{one.project}{one.requirement.specifier}" for one in limits if one.applies],
        # uv searches the parent folders for settings, where anyone may have written; this file ends the search.
        "uv.toml": [],
    }
    steps = [["-r", "hashed.txt", "--require-hashes"]] if hashed else []
    steps.append(["-r", "requirements.txt", *(["-c", "constraints.txt"] if files["constraints.txt"] else [])])
    options = [] if allow_source else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(prefix="agent-gateway-") as folder:
        for name, lines in files.items():
            Path(folder, name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        report(f"Resolving {_count(required)} ...")
        for only_plan in [True] if dry_run else [True, False]:
            if not only_plan:
                report("Installing ...")
            mode = ["--dry-run"] if only_plan else []
            for step in steps:
                # The installation shows the plan again.
                error = _run([*mode, *options, *step], folder, report, quiet=only_plan and not dry_run)
                if error:
                    # The first line is ours, and names uv.
                    raise InstallError(*error, *_explain("\n".join(error[1:]), chosen, others))
    invalidate_caches()


def _count(required: Sequence[Sequence[object]]) -> str:
    number = sum(map(len, required))
    return "1 requirement" if number == 1 else f"{number} requirements"


@contextmanager
def _progress(report: Callable[[str], None]) -> Iterator[None]:
    """Reports at intervals that the work continues: uv prints nothing while it downloads."""
    ended, began = threading.Event(), time.monotonic()

    def repeat() -> None:
        while not ended.wait(PROGRESS_SECONDS):
            report(f"  still working ({time.monotonic() - began:.0f} s)")

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _run(arguments: Sequence[str], folder: str, report: Callable[[str], None], *, quiet: bool) -> list[str]:
    """Runs `uv pip install`. Returns uv's error message, line by line; nothing when it succeeded."""
    try:
        command = [uv.find_uv_bin(), "pip", "install", "--color", "never", "--python", sys.executable, *arguments]
        process = subprocess.Popen(  # noqa: S603 - no shell, and no argument comes from an agent
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise InstallError(
            f"uv cannot be started: {error.strerror or error}", f"Reinstall the package 'uv' for {sys.executable}."
        ) from error
    message: list[str] = []
    with process, _progress(report):
        assert process.stdout is not None
        for line in process.stdout:
            line = hide_credentials(line.rstrip())  # an index URL may contain a password
            if message or line.startswith("error"):
                message.append(line)
            elif not quiet:
                report(line)
    return [f"uv exited with status {process.returncode}:", *message] if process.returncode else []


def _explain(message: str, chosen: Sequence[Declaration], others: Sequence[Declaration]) -> Iterator[str]:
    """The requirements on the projects that uv's message mentions, with their locations, and what to do."""
    own = list(_claims(chosen))
    claims = [*own, *_claims(others)]
    claims += [(need, f"  the gateway requires {need} (dependency of {GATEWAY})") for need in needs_of_the_gateway()]
    names = {canonicalize_name(need.name) for need, _ in own}
    mentioned = {canonicalize_name(word) for word in _WORD.findall(message)}
    if not mentioned & names:
        mentioned |= names  # uv names only what these require in turn
    yield from (claim for need, claim in claims if canonicalize_name(need.name) in mentioned)
    if "building from source is disabled" in message:
        yield "Choose a version that has a wheel, or set allow_source = true in [plugins.requirements]."
    else:
        yield "Change the agents' lines so that one version fits all, or check the package index in the settings of uv."


def _claims(agents: Sequence[Declaration]) -> Iterator[tuple[Requirement, str]]:
    for agent in agents:
        for one in [*agent.requirements, *agent.constraints]:
            if one.applies:
                yield one.requirement, f"  agent {agent.agent_id} requires {one.requirement} ({one.location})"
