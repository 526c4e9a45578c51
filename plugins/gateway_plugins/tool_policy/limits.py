"""Limits on a tool object: the SDK's own timeout and guardrails, put on in place and once.

A tool that stays within them behaves to its model exactly as without. It decides nothing by name.
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
# Set by the SDK on tools that are plain functions; it only makes the SDK refuse to copy one that has a timeout.
_PLAIN_FUNCTION = "__agents_sync_function_tool__"


def limit(tool: Any, timeout: float, max_arguments: int, max_result: int) -> None:
    """Put the limits on a function tool; any other is left alone, because nothing here sees its calls."""
    if not isinstance(tool, FunctionTool):
        return
    _limit_time(tool, timeout)
    before, after = tool.tool_input_guardrails or [], tool.tool_output_guardrails or []
    if not any(isinstance(guard, ArgumentsLimit) for guard in before):
        tool.tool_input_guardrails = [ArgumentsLimit(max_arguments), *before]
    if not any(isinstance(guard, ResultLimit) for guard in after):
        # Last: what an author's own guardrail rejects never gets there.
        tool.tool_output_guardrails = [*after, ResultLimit(max_result)]


def _limit_time(tool: FunctionTool, timeout: float) -> None:
    # An agent that is used as a tool has its own turns and models; its run has a limit already.
    if not timeout or tool.timeout_seconds is not None or tool._is_agent_tool:
        return
    tool.timeout_seconds = timeout
    if getattr(tool.on_invoke_tool, _PLAIN_FUNCTION, False):
        # The model goes on; the thread is the tool's until it returns.
        setattr(tool.on_invoke_tool, _PLAIN_FUNCTION, False)


class ArgumentsLimit(ToolInputGuardrail[Any]):
    """Rejects a call whose arguments are too long.

    Args:
        most: Bytes of JSON.
    """

    def __init__(self, most: int) -> None:
        super().__init__(self.run, name="max_arguments")
        self._most = most

    async def run(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        arguments = data.context.tool_arguments
        # A character is at most four bytes, so most calls need not be encoded to be measured.
        if len(arguments) * 4 <= self._most or len(arguments.encode()) <= self._most:
            return _ALLOW()
        return _REJECT(f"The arguments are too long: at most {self._most} bytes are taken.")


class ResultLimit(ToolOutputGuardrail[Any]):
    """Cuts off what is too long for a model.

    Args:
        most: Bytes of text, or of JSON where the result is no text.
    """

    def __init__(self, most: int) -> None:
        super().__init__(self.run, name="max_result")
        self._most = most

    async def run(self, data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        text = data.output if isinstance(data.output, str) else _as_text(data.output)
        if len(text) * 4 <= self._most:
            return _ALLOW()
        whole = text.encode(errors="replace")
        if len(whole) <= self._most:
            return _ALLOW()
        kept = whole[: self._most].decode(errors="ignore")
        return _REJECT(f"{kept}\n[cut off here: {self._most} of {len(whole)} bytes]")


def _as_text(value: Any) -> str:
    """Close enough to what the SDK will make of it, to know its size."""
    if value is None or isinstance(value, bool | int | float):
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=_jsonable)
    except (TypeError, ValueError):
        return str(value)


def _jsonable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)
