"""Offers function tools without namespaces, deferred loading and other features that only the Responses API has.

The model sees each tool under its bare name; its calls get the namespace back by which the SDK finds the tool.
"""

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agents import FunctionTool, ModelResponse, Tool


def flat(tools: Sequence[Tool]) -> list[Tool]:
    """Return the tools, with each function tool in a form that Chat Completions supports."""
    return [_bare(tool) if isinstance(tool, FunctionTool) and _is_special(tool) else tool for tool in tools]


def namespaces(tools: Sequence[Tool]) -> dict[str, str]:
    """Return the namespaces of the tools that are in one, by the tools' names."""
    return {
        tool.name: tool.qualified_name.removesuffix(f".{tool.name}")
        for tool in tools
        if isinstance(tool, FunctionTool) and (tool.defer_loading or tool.qualified_name != tool.name)
    }


def restore(response: ModelResponse, names: Mapping[str, str]) -> ModelResponse:
    """Return a response whose calls have their namespaces."""
    return dataclasses.replace(response, output=[_with_namespace(item, names) for item in response.output])


async def restore_streamed(events: AsyncIterator[Any], names: Mapping[str, str]) -> AsyncIterator[Any]:
    """Yield the events of a response, whose calls have their namespaces."""
    async for event in events:
        if (item := getattr(event, "item", None)) is not None:
            event = event.model_copy(update={"item": _with_namespace(item, names)})
        elif event.type == "response.completed":
            output = [_with_namespace(item, names) for item in event.response.output]
            event = event.model_copy(update={"response": event.response.model_copy(update={"output": output})})
        yield event


def _is_special(tool: FunctionTool) -> bool:
    return bool(
        tool.defer_loading
        or tool.qualified_name != tool.name
        or tool.allowed_callers is not None
        or tool.output_json_schema is not None
    )


def _bare(tool: FunctionTool) -> FunctionTool:
    # Only the model reads this copy; the SDK calls the agent's own tool.
    return FunctionTool(
        name=tool.name,
        description=tool.description,
        params_json_schema=tool.params_json_schema,
        on_invoke_tool=tool.on_invoke_tool,
        strict_json_schema=tool.strict_json_schema,
    )


def _with_namespace(item: Any, names: Mapping[str, str]) -> Any:
    if item.type != "function_call" or item.name not in names or item.namespace:
        return item
    return item.model_copy(update={"namespace": names[item.name]})
