"""Attributes a stack of frames to a run and a tool call.

Plugins use it to inspect the stack of another thread, whose context variables are not accessible. It reads only the
local variables named below.
"""

from types import FrameType

from gateway_core.types import RunContext

RUN = "agent_gateway_run"
"""The local variable that identifies the run in the outermost frames of its tasks."""

_TOOL_CONTEXTS = ("tool_context", "ctx")
"""The names of the tool context in the SDK's functions."""


def attributed_run(frame: FrameType | None) -> tuple[RunContext | None, str | None]:
    """Return the run and the name of the tool that a stack executes; `None` for each that is unknown.

    Args:
        frame: The innermost frame.
    """
    tool: str | None = None
    while frame is not None:
        names = frame.f_code.co_varnames
        if RUN in names:
            run = frame.f_locals.get(RUN)
            if isinstance(run, RunContext):
                return run, tool
        if tool is None and str(frame.f_globals.get("__name__", "")).startswith("agents."):
            tool = _tool(frame, names)
        frame = frame.f_back
    return None, tool


def _tool(frame: FrameType, names: tuple[str, ...]) -> str | None:
    for name in _TOOL_CONTEXTS:
        if name in names:
            found = getattr(frame.f_locals.get(name), "tool_name", None)
            if isinstance(found, str):
                return found
    return None
