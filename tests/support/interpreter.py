"""Runs code in a new Python process, for tests that need a fresh interpreter."""

import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60.0


def run_python(code: str, cwd: Path) -> str:
    """Run code in a separate process, and return its standard output.

    Raises:
        AssertionError: The process failed or timed out. The message contains its output, and after a timeout the
            stack of each of its threads.
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
