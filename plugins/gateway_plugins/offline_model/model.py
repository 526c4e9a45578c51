"""The offline model: calls an agent's tools and answers without an LLM, deterministically.

It never uses the network, never repeats an agent's instructions, and calls at most one tool for a user message.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from agents import (
    AgentOutputSchemaBase,
    FunctionTool,
    Handoff,
    Model,
    ModelProvider,
    ModelResponse,
    ModelSettings,
    Tool,
    Usage,
)
from agents.items import TResponseInputItem, TResponseStreamEvent

from gateway_plugins.offline_model import events
from gateway_plugins.offline_model.arguments import Schema, fill, words

NOTICE = (
    "I am the gateway's built-in offline model, not an LLM; "
    "set OPENAI_API_KEY or start Ollama or LM Studio to get real answers."
)
_QUOTED = 200
_LONGEST_OUTPUT = 4000
# How the SDK's output of a handoff begins.
_HANDED_OFF = '{"assistant": '


class _Callable(NamedTuple):
    """A function tool or a handoff."""

    name: str
    description: str
    parameters: Schema


class OfflineModel(Model):
    """A model without an LLM. Its methods take the SDK's arguments and use those that `_respond` names.

    Args:
        word_delay: Seconds before each word of a streamed answer.
    """

    def __init__(self, *, word_delay: float = 0.0) -> None:
        self._word_delay = word_delay

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Answers as a whole."""
        return ModelResponse(output=[self._respond(*args, **kwargs)], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Answers word by word."""
        return events.stream(self._respond(*args, **kwargs), self._word_delay)

    def _respond(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        *_: Any,
        **__: Any,
    ) -> events.Item:
        """The output item of one turn: a call, a structured output or a text."""
        given: list[Any] = [{"role": "user", "content": input}] if isinstance(input, str) else input
        items = [item for item in given if isinstance(item, Mapping)]
        users = [at for at, item in enumerate(items) if item.get("role") == "user"]
        text = _text(items[users[-1]].get("content")) if users else ""
        results = _results(items[users[-1] + 1 :] if users else items)
        outputs = [(name, output) for name, output in results if not output.startswith(_HANDED_OFF)]
        if not outputs:
            functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
            offered = [_Callable(tool.name, tool.description, tool.params_json_schema) for tool in functions]
            if not results:
                # One handoff for a message: agents that hand off to each other would run until `max_turns`.
                offered += [_Callable(h.tool_name, h.tool_description, h.input_json_schema) for h in handoffs]
            called = _choose(text, model_settings.tool_choice, offered)
            if called is not None:
                return events.function_call(called.name, _json({"type": "object", **called.parameters}, text))
        if output_schema is not None and not output_schema.is_plain_text():
            return events.message(_structured(output_schema, "\n".join(output for _, output in outputs) or text))
        introduced = any(NOTICE in _text(item.get("content")) for item in items if item.get("role") == "assistant")
        told = [f"The tool `{name}` returned: {output[:_LONGEST_OUTPUT] or 'nothing'}" for name, output in outputs]
        return events.message("\n\n".join([*([] if introduced else [NOTICE]), *(told or [_echo(text)])]))


class OfflineProvider(ModelProvider):
    """Provides one offline model for every model name.

    Args:
        word_delay: Seconds before each word of a streamed answer.
    """

    def __init__(self, *, word_delay: float = 0.0) -> None:
        self._model = OfflineModel(word_delay=word_delay)

    def get_model(self, model_name: str | None) -> Model:
        """The offline model."""
        return self._model


def _text(content: Any) -> str:
    """The text of a message or a tool output; lone surrogates, which UTF-8 cannot encode, are replaced."""
    if isinstance(content, list):
        content = "\n".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return content.encode("utf-8", "replace").decode().strip() if isinstance(content, str) else ""


def _results(items: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Names and outputs of calls. The notice is removed: an agent that is a tool gives it, too."""
    names = {str(item.get("call_id")): str(item.get("name")) for item in items if item.get("type") == "function_call"}
    outputs = [item for item in items if item.get("type") == "function_call_output"]
    texts = [_text(item.get("output")).replace(NOTICE, "").strip() for item in outputs]
    return [(names.get(str(item.get("call_id")), "?"), text) for item, text in zip(outputs, texts, strict=True)]


def _echo(text: str) -> str:
    quoted = " ".join(text[: 10 * _QUOTED].split())
    quoted = quoted if len(quoted) <= _QUOTED else f"{quoted[:_QUOTED]}…"
    return f"{f'You wrote: “{quoted}”.' if quoted else 'There is no text to answer.'} A real LLM would answer here."


def _choose(text: str, tool_choice: Any, offered: list[_Callable]) -> _Callable | None:
    """The tool that `tool_choice` names, else the first that shares a word with the text: names, then descriptions."""
    if tool_choice == "none":
        return None
    asked = words(text)
    named = [one for one in offered if one.name == tool_choice]
    by_name = [one for one in offered if asked & words(one.name)]
    described = [one for one in offered if asked & words(one.description)]
    required = offered if tool_choice == "required" else []
    return next(iter([*named, *by_name, *described, *required]), None)


def _structured(output_schema: AgentOutputSchemaBase, text: str) -> str:
    """JSON for an output type: with values from the text if the type accepts them, else with minimal ones."""
    filled = _json(output_schema.json_schema(), text)
    try:
        output_schema.validate_json(filled)
    except Exception:
        # An author's validator may raise anything.
        return _json(output_schema.json_schema(), "")
    return filled


def _json(schema: Schema, text: str) -> str:
    return json.dumps(fill(schema, text), ensure_ascii=False)
