"""Protects a command from the modules of agents that it imports: from their output, and from their exits."""

import os
import sys
from collections.abc import Callable
from typing import TextIO

from gateway_core.cli import report
from gateway_core.errors import GatewayError

# Added to the exit status of the child process, to distinguish it from an exit by an agent's module.
_CHILD_BASE = 100


def take_stdout() -> TextIO:
    """Return the standard output, and send to standard error what the agents' modules print, also when they exit.

    Their libraries and processes may write to the descriptor itself, so the descriptor is redirected.
    """
    output = sys.stdout
    try:
        descriptor = output.fileno()
    except (OSError, ValueError):  # replaced by a stream without a descriptor
        sys.stdout = sys.stderr
        return output
    output.flush()
    taken = open(os.dup(descriptor), "w", encoding=output.encoding, errors=output.errors)  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), descriptor)
    return taken


def in_child(work: Callable[[], int]) -> int | None:
    """Call a function in a child process and return its status, or `None` if the child exited early."""
    if not hasattr(os, "fork"):
        return None
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = work()
            sys.stdout.flush()
        except GatewayError as error:
            status = report(error)
        finally:
            os._exit(_CHILD_BASE + status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code - _CHILD_BASE if code >= _CHILD_BASE else None
