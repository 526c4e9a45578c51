"""The offline model: no LLM, but it calls an agent's tools and answers, the same each time.

It must not reach the network, reveal an agent's instructions, or raise on any input.
"""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

from agents import (
    AgentOutputSchemaBase,
    Handoff,
    Model,
    ModelProvider,
    ModelResponse,
    ModelSettings,
    Tool,
    Trace,
    Usage,
    get_current_trace,
)
from agents.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
from agents.models.interface import ModelTracing
from openai.types.responses.response_prompt_param import ResponsePromptParam

from gateway_plugins.offline_model import events
from gateway_plugins.offline_model.answers import answer, data_of, without_notice
from gateway_plugins.offline_model.arguments import fill
from gateway_plugins.offline_model.choice import Candidate, choose
from gateway_plugins.offline_model.conversation import Conversation, read
from gateway_plugins.offline_model.matching import stems
from gateway_plugins.offline_model.material import Material


class OfflineModel(Model):
    """A model without an LLM.

    Args:
        word_delay: Seconds between two words of a streamed answer.
    """

    def __init__(self, *, word_delay: float = 0.0) -> None:
        self._word_delay = word_delay
        self._handed_off: WeakKeyDictionary[Trace, set[str]] = WeakKeyDictionary()

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: ResponsePromptParam | None,
    ) -> ModelResponse:
        """Answer at once."""
        item = self._respond(input, model_settings, tools, output_schema, handoffs)
        return ModelResponse(output=[item], usage=Usage(requests=1), response_id=None)

    def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: ResponsePromptParam | None = None,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Answer word by word."""
        item = self._respond(input, model_settings, tools, output_schema, handoffs)
        return events.told([item], self._word_delay)

    def _respond(
        self,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
    ) -> TResponseOutputItem:
        """The one thing that the model does in a turn: a call, an answer in a form, or an answer in prose."""
        conversation = read(input)
        trace = get_current_trace()
        # A handoff's filter may hide from the next agent that there was one; the run's trace stays the same, also where
        # tracing is off.
        gone = self._handed_off.setdefault(trace, set()) if trace else set()
        open_handoffs = [] if conversation.message in gone else handoffs
        called = choose(conversation, tools, open_handoffs, model_settings.tool_choice)
        if called is not None:
            if called.is_handoff:
                gone.add(conversation.message)
            return events.function_call(called.name, _arguments(called, conversation), f"call_{uuid.uuid4().hex}")
        # The message is answered: the same words in another run of this trace are another message.
        gone.discard(conversation.message)
        if output_schema is not None and not output_schema.is_plain_text():
            return events.message(_formed(output_schema, conversation))
        return events.message(answer(conversation))


class OfflineProvider(ModelProvider):
    """Hands out one offline model, whatever name an agent asks for.

    Args:
        word_delay: Seconds between two words of a streamed answer.
    """

    def __init__(self, *, word_delay: float = 0.0) -> None:
        self._model = OfflineModel(word_delay=word_delay)

    def get_model(self, model_name: str | None) -> Model:
        """The offline model."""
        return self._model


def _arguments(called: Candidate, conversation: Conversation) -> str:
    if not called.parameters:
        return "{}"
    topic = stems(*called.names)
    material = Material(conversation.message, known=_known(conversation), topic=topic)
    return _json(fill(called.parameters, material))


def _formed(output_schema: AgentOutputSchemaBase, conversation: Conversation) -> str:
    """An answer that has the form that the agent's author asks for, where one can be made."""
    schema = output_schema.json_schema()
    outputs = [without_notice(output) for output in conversation.outputs]
    filled = _json(fill(schema, Material(conversation.message, outputs, _known(conversation))))
    for candidate in (filled, _json(fill(schema, Material("")))):
        try:
            output_schema.validate_json(candidate)
        except Exception:
            # An author's own validator may raise anything; the run loop says best what is wrong with the last one.
            continue
        return candidate
    return filled


def _known(conversation: Conversation) -> dict[str, Any]:
    """Values by name from tools that answered with JSON objects; a newer answer wins."""
    known: dict[str, Any] = {}
    for output in reversed(conversation.outputs):
        value = data_of(output)
        if isinstance(value, dict):
            known |= {name: item for name, item in value.items() if isinstance(name, str)}
    return known


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
