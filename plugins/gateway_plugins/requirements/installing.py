"""Carries out a plan: writes its files into a temporary folder and runs its commands there.

It decides nothing: what is not in the plan is not installed.
"""

import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from importlib import invalidate_caches
from pathlib import Path

from gateway_plugins.requirements.declarations import hide_credentials
from gateway_plugins.requirements.planning import CONSTRAINTS, REQUIREMENTS, Plan

Tell = Callable[[str], None]
Runner = Callable[[Sequence[str], Path, Tell], int]
"""Runs a command in a folder, tells its output line by line, and returns its exit status."""

_LAST_LINES = 5


def run(command: Sequence[str], folder: Path, tell: Tell) -> int:
    """The runner that starts a real process."""
    with subprocess.Popen(  # noqa: S603 - no shell, and every argument is the plan's own
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tell(line.rstrip())
    return process.returncode


def install(plan: Plan, runner: Runner, tell: Tell) -> str | None:
    """Install what a plan says.

    Args:
        plan: A plan without conflicts.
        runner: Runs each command.
        tell: Told of each line that a command prints.

    Returns:
        What went wrong, with the last lines of output; none when all commands succeeded.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def hear(line: str) -> None:
        line = hide_credentials(line)  # an operator's index may have a password in its URL
        last.append(line)
        tell(line)

    for batch in plan.batches:
        # In a folder of its own the installer finds no settings and no modules that lie around where the gateway runs.
        with tempfile.TemporaryDirectory(prefix="agent-gateway-") as name:
            folder = Path(name)
            (folder / REQUIREMENTS).write_text("".join(f"{line}\n" for line in batch.requirements), encoding="utf-8")
            (folder / CONSTRAINTS).write_text("".join(f"{line}\n" for line in batch.constraints), encoding="utf-8")
            try:
                status = runner(batch.command, folder, hear)
            except OSError as error:
                return f"{batch.command[0]} cannot be started: {error.strerror}"
        if status != 0:
            return f"the installer ended with exit status {status}: {' / '.join(last)}"
    invalidate_caches()
    return None
