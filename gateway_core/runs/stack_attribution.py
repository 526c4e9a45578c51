"""Which run, and which tool call in it, the code in a stack of frames works for.

For whoever looks at another thread's stack, where no context variable can be read. It reads no value but these two.
"""

from types import FrameType

from gateway_core.types import RunContext

RUN = "agent_gateway_run"
"""The local variable by which the frames at the bottom of a run's tasks tell whose they are."""

_TOOL_CONTEXTS = ("tool_context", "ctx")
"""What the SDK calls the context of a tool's call, in its own functions."""


def attributed_run(frame: FrameType | None) -> tuple[RunContext | None, str | None]:
    """The run and the name of the tool.

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
