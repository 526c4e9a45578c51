"""Imports one agent's file in a process of its own, to see whether it survives: see `main`.

A module that calls `os._exit` or crashes the interpreter while it is imported takes only this process with it. Ordinary
errors are not its business: the import that follows tells them better.
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
"""An exit status that no crash has by accident."""


def command(file: Path, folder: Path | None, shared: Path | None) -> tuple[str, ...]:
    """What to run for a trial of a file, with the arguments of `load_isolated`."""
    return (sys.executable, "-m", "gateway_core.catalog.import_probe", str(file), str(folder or ""), str(shared or ""))


def probe_import(trial: Sequence[str], source: str, seconds: float) -> None:
    """Run a trial. Blocking.

    Raises:
        LoadError: The process did not survive it, or took too long.
    """
    try:
        done = subprocess.run(trial, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)  # noqa: S603
    except subprocess.TimeoutExpired:
        return  # the import that follows finds the line
    if done.returncode != SURVIVED:
        how = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else f"exit {done.returncode}"
        raise LoadError(
            f"the module ends the process that imports it ({how})",
            source=source,
            hint="look for os._exit() and for native code that crashes",
            code="import",
        )


def main() -> None:
    """Import what the command line names."""
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
