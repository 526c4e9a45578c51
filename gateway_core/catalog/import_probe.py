"""Imports an agent's file in a separate process to check that the import does not end the process (see `main`).

A module that calls `os._exit` or crashes the interpreter during its import ends only the separate process. Ordinary
exceptions are ignored here: the real import that follows reports them with more detail.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway_core.catalog.module_isolation import load_isolated
from gateway_core.errors import LoadError

SURVIVED = 23
"""Exit status of a completed trial; unlikely to occur by accident."""


def command(file: Path, folder: Path | None, shared: Path | None) -> tuple[str, ...]:
    """Return the command line of a trial import, which passes these arguments to `load_isolated`."""
    return (sys.executable, "-m", "gateway_core.catalog.import_probe", str(file), str(folder or ""), str(shared or ""))


def probe_import(trial: Sequence[str], source: str, seconds: float) -> None:
    """Run a trial import. Blocking.

    A trial that exceeds `seconds` is not an error here: the real import times out as well, and reports the line.

    Args:
        trial: The command line, from `command`.
        source: The location of the agent, for errors.
        seconds: Timeout of the trial.

    Raises:
        LoadError: The import ended the process.
    """
    try:
        done = subprocess.run(trial, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)  # noqa: S603
    except subprocess.TimeoutExpired:
        return
    if done.returncode != SURVIVED:
        how = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"exit {done.returncode}"
        raise LoadError(
            f"importing the module ends the process ({how})",
            source=source,
            hint="remove os._exit() calls, and check for native code that crashes",
            code="import",
        )


def main() -> None:
    """Import the file that the command line names."""
    file, folder, shared = (Path(argument) if argument else None for argument in sys.argv[1:4])
    assert file is not None
    try:
        load_isolated(file, folder=folder, name="trial", shared=shared)
    except BaseException:
        pass
    finally:
        os._exit(SURVIVED)


if __name__ == "__main__":
    main()
