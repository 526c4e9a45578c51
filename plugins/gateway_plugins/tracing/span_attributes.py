"""Maps span data of the Agents SDK to OpenTelemetry span names and attributes.

Without `content`, the attributes do not contain text of users, models or tools.
"""

import json
from collections.abc import Mapping
from typing import Any

from agents.tracing import (
    AgentSpanData,
    CustomSpanData,
    FunctionSpanData,
    GenerationSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    MCPListToolsSpanData,
    ResponseSpanData,
    SpanData,
)
from attrs import frozen
from opentelemetry.trace import SpanKind

MAX_CHARACTERS = 32_768
"""Maximum length of an attribute with content."""


@frozen
class Description:
    """Name, attributes and kind of a span."""

    name: str
    attributes: Mapping[str, Any]
    kind: SpanKind = SpanKind.INTERNAL


def describe_span(data: SpanData) -> Description | None:
    """Returns the span's description, or `None` for SDK spans that are not exported, such as turns."""
    match data:
        case AgentSpanData():
            return Description(
                f"invoke_agent {data.name}",
                {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": data.name},
            )
        case GenerationSpanData():
            return _model(data.model)
        case ResponseSpanData():
            return _model(getattr(data.response, "model", None))
        case FunctionSpanData():
            server = (data.mcp_data or {}).get("server")
            attributes = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": data.name,
                "gen_ai.tool.type": "extension" if server else "function",
            }
            if server:
                attributes |= {"mcp.method.name": "tools/call", "agent_gateway.mcp.server": str(server)}
            return Description(f"execute_tool {data.name}", attributes)
        case HandoffSpanData():
            named = {"agent_gateway.handoff.from": data.from_agent, "agent_gateway.handoff.to": data.to_agent}
            given = {name: value for name, value in named.items() if value}
            return Description(f"handoff {data.to_agent or ''}".strip(), given)
        case GuardrailSpanData():
            attributes = {"agent_gateway.guardrail.name": data.name}
            return Description(
                f"guardrail {data.name}", {**attributes, "agent_gateway.guardrail.triggered": data.triggered}
            )
        case MCPListToolsSpanData():
            attributes = {"mcp.method.name": "tools/list", "agent_gateway.mcp.server": data.server or ""}
            return Description(f"tools/list {data.server or ''}".strip(), attributes, SpanKind.CLIENT)
        case CustomSpanData():
            return Description(data.name, {})
    return None


def result_attributes(data: SpanData, *, content: bool) -> dict[str, Any]:
    """Returns the attributes that are known when a span ends."""
    found: dict[str, Any] = {}
    if isinstance(data, GenerationSpanData | ResponseSpanData):
        usage = data.usage if isinstance(data.usage, dict) else {}
        for kind in ("input", "output"):
            tokens = usage.get(f"{kind}_tokens")
            if isinstance(tokens, int):
                found[f"gen_ai.usage.{kind}_tokens"] = tokens
        if content:
            output = data.output if isinstance(data, GenerationSpanData) else getattr(data.response, "output", None)
            found |= {"gen_ai.input.messages": _text(data.input), "gen_ai.output.messages": _text(output)}
    elif isinstance(data, FunctionSpanData) and content:
        found |= {"gen_ai.tool.call.arguments": _text(data.input), "gen_ai.tool.call.result": _text(data.output)}
    return found


def _model(name: str | None) -> Description:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
    if name:
        attributes["gen_ai.request.model"] = name
    return Description(f"chat {name or ''}".strip(), attributes, SpanKind.CLIENT)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_jsonable)
    return text[:MAX_CHARACTERS]


def _jsonable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)
