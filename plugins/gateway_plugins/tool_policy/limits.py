"""Applies limits to a tool object, once and in place, with the SDK's timeout and guardrails.

The limits do not change the behavior of a tool that stays within them.
"""

import json
from typing import Any

from agents import FunctionTool
from agents.tool_guardrails import (
    ToolGuardrailFunctionOutput,
    ToolInputGuardrail,
    ToolInputGuardrailData,
    ToolOutputGuardrail,
    ToolOutputGuardrailData,
)

_ALLOW = ToolGuardrailFunctionOutput.allow
_REJECT = ToolGuardrailFunctionOutput.reject_content
# The SDK sets it on tools that are plain functions; its only effect is that such a tool with a timeout is not copied.
_PLAIN_FUNCTION = "__agents_sync_function_tool__"


def limit(tool: Any, timeout: float, max_arguments: int, max_result: int) -> None:
    """Apply the limits to a function tool. Other tools are unchanged, because their calls are not visible here."""
    if not isinstance(tool, FunctionTool):
        return
    _limit_time(tool, timeout)
    before, after = tool.tool_input_guardrails or [], tool.tool_output_guardrails or []
    if not any(isinstance(guard, ArgumentsLimit) for guard in before):
        tool.tool_input_guardrails = [ArgumentsLimit(max_arguments), *before]
    if not any(isinstance(guard, ResultLimit) for guard in after):
        # Last, so that it does not measure a result that the author's own guardrail rejects.
        tool.tool_output_guardrails = [*after, ResultLimit(max_result)]


def _limit_time(tool: FunctionTool, timeout: float) -> None:
    # An agent as a tool has its own turns and model calls, and its run is already limited.
    if not timeout or tool.timeout_seconds is not None or tool._is_agent_tool:
        return
    tool.timeout_seconds = timeout
    if getattr(tool.on_invoke_tool, _PLAIN_FUNCTION, False):
        # After a timeout the model continues, but the thread stays occupied until the function returns.
        setattr(tool.on_invoke_tool, _PLAIN_FUNCTION, False)


class ArgumentsLimit(ToolInputGuardrail[Any]):
    """Rejects a call whose arguments are too large.

    Args:
        limit: Maximum size of the JSON in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(self.run, name="max_arguments")
        self._limit = limit

    async def run(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        arguments = data.context.tool_arguments
        # A character has at most four bytes, so most arguments are measured without encoding them.
        if len(arguments) * 4 <= self._limit or len(arguments.encode()) <= self._limit:
            return _ALLOW()
        return _REJECT(f"The arguments are too large: the maximum is {self._limit} bytes.")


class ResultLimit(ToolOutputGuardrail[Any]):
    """Cuts off a result that is too large.

    Args:
        limit: Maximum size of the text in bytes, or of the JSON if the result is not a string.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(self.run, name="max_result")
        self._limit = limit

    async def run(self, data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        text = data.output if isinstance(data.output, str) else _as_text(data.output)
        if len(text) * 4 <= self._limit:
            return _ALLOW()
        whole = text.encode(errors="replace")
        if len(whole) <= self._limit:
            return _ALLOW()
        kept = whole[: self._limit].decode(errors="ignore")
        return _REJECT(f"{kept}\n[cut off here: {self._limit} of {len(whole)} bytes]")


def _as_text(value: Any) -> str:
    """Approximate the SDK's text for a value, to measure its size."""
    if value is None or isinstance(value, bool | int | float):
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=_jsonable)
    except (TypeError, ValueError):
        return str(value)


def _jsonable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)
