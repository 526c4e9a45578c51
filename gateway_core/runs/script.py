"""Calls the functions of workflows and scripts, and gives a script's `input()` the message of the request.

A script is a function without arguments, such as `main`. Its first `input()` returns the message, if no run has taken
it; a further one ends the script, as the end of a terminal's input does. Requests do not affect each other.
"""

import builtins
import inspect
from collections.abc import Callable
from typing import Any

from gateway_core.catalog.runnables import WorkflowRunnable
from gateway_core.daemon_thread import DaemonThread, ThreadExitError
from gateway_core.errors import RunError
from gateway_core.runs.run_scope import POSITION, WorkflowState

_terminal_input = builtins.input


def install_input() -> None:
    """Make `input()` return the message inside a script's run, and fail in an import. Process-wide and idempotent.

    Call this before the process-wide settings are saved; otherwise they are restored to the terminal's `input()`.
    """
    global _terminal_input
    if builtins.input is not _input:
        _terminal_input = builtins.input
        builtins.input = _input


def call(workflow: WorkflowRunnable, *arguments: Any) -> Any:
    """Call a workflow's function; that of a method on a new instance of its class."""
    instance = () if workflow.owner is None else (workflow.owner(),)
    return workflow.function(*instance, *arguments)


async def completed(workflow: WorkflowRunnable, *arguments: Any) -> Any:
    """Call a workflow's function and return its result. A synchronous function runs in a thread.

    The thread is not one of those for tools: functions that wait for tools must not occupy them.

    Raises:
        BaseException: Any exception that the function raises.
    """
    if inspect.iscoroutinefunction(workflow.function):
        return await call(workflow, *arguments)
    try:
        result = await DaemonThread(lambda: call(workflow, *arguments), name="workflow").result()
    except ThreadExitError as carried:
        raise (carried.__cause__ or carried) from None
    return await result if inspect.isawaitable(result) else result


async def run_script(workflow: WorkflowRunnable, state: WorkflowState) -> Any:
    """Run a script and return its result; `None` if the end of its input, or `exit()`, ended it.

    Raises:
        RunError: It ended without running an agent.
        BaseException: Any other exception that the script raises.
    """
    script = state.script
    assert script is not None
    returned = None
    try:
        returned = await completed(workflow)
    except (EOFError, KeyboardInterrupt):
        if not script.inputs_after:
            raise
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
    finally:
        script.close()
    if not state.runs and not isinstance(returned, str):
        name = getattr(workflow.function, "__qualname__", "the script")
        raise RunError(
            f"{name}() ended without running an agent",
            hint="call input() once, and run the agent with its result",
            code="no_answer",
        )
    # Scripts return exit codes, which are not an answer.
    return None if isinstance(returned, int | float) else returned


def _input(prompt: object = "", /) -> str:
    position = POSITION.get()
    if position is not None and position.scope.importing:
        raise EOFError("the module calls input() when it is imported")
    workflow = position.scope.workflow if position is not None else None
    if position is None or workflow is None or workflow.script is None:
        ask: Callable[[object], str] = _terminal_input
        return ask(prompt)
    script = workflow.script
    if not script.taken:
        script.taken = True
        return position.scope.text
    script.inputs_after += 1
    if script.inputs_after == 1:
        raise EOFError("the request contains one message")
    # The script has caught the first error and continues, perhaps in an endless loop with `except Exception`.
    raise KeyboardInterrupt
