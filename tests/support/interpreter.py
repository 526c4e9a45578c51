"""Another Python, for what only a fresh process can tell."""

import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60.0


def run_python(code: str, cwd: Path) -> str:
    """Run code in a process of its own, and return what it wrote to its standard output.

    Raises:
        AssertionError: It failed, or did not end; with what it said, and in the second case with the place at which
            each of its threads stood.
    """
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, errors = process.communicate(timeout=SECONDS)
            raise AssertionError(f"it did not end within {SECONDS} s:\n{out}\n{errors}") from None
        finally:
            process.kill()
    assert process.returncode == 0, f"exit status {process.returncode}:\n{out}\n{errors}"
    return out
