"""Answers streaming clients from models that do not stream: one whole answer, as the events of a streamed one.

It concerns the authors' own models: objects in `Agent(model=…)` and `RunConfig(model=…)`, and those of an author's
model provider. An error after the first event, or one that does not say that streaming is unsupported, stays an error.
"""

import inspect
import itertools
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, nullcontext
from typing import Any
from weakref import WeakSet

import openai
from agents import Agent, Model, ModelResponse, RunConfig
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types import responses as types

from gateway_core.runs.delegating_model import DelegatingModel
from gateway_core.runs.run_scope import POSITION

logger = logging.getLogger(__name__)

_ARGUMENTS = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")
_UNSUPPORTED = re.compile(
    r"not (?:yet |currently )?(?:supported|implemented|available)|unsupported|unimplemented"
    r"|(?:does not|doesn't|do not|don't|cannot|can't) (?:yet )?(?:support|implement|stream)|no streaming",
    re.IGNORECASE,
)
# Models whose streaming failed, and which answered without it: it is not tried again.
_without_streaming: WeakSet[Model] = WeakSet()


def decorate(model: Model, agent: Agent[Any], config: RunConfig) -> Model:
    """Return the model for a turn of a run: an author's own is decorated, if the run belongs to a request.

    The models of the gateway's providers are returned unchanged, so that their events have no overhead. So are the
    SDK's own classes, which stream and which the SDK identifies by type.
    """
    position = POSITION.get()
    if position is None or type(model).__module__.startswith("agents.models."):
        return model
    named = config.model if config.model is not None else agent.model
    if not isinstance(named, Model) and config.model_provider is position.scope.provider:
        return model
    return _WholeAnswers(model)


class _WholeAnswers(DelegatingModel):
    """A model of which `stream_response` falls back to `get_response`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get_response(self, *given: Any, **named: Any) -> ModelResponse:
        return await self._inner.get_response(*given, **named)

    async def stream_response(self, *given: Any, **named: Any) -> AsyncIterator[Any]:
        began = False
        if not _is_known(self._inner):
            try:
                stream = await _opened(self._inner, given, named)
                async with aclosing(stream) if hasattr(stream, "aclose") else nullcontext():
                    async for event in stream:
                        began = True
                        yield event
            except Exception as error:
                if began or not _says_unsupported(error):
                    raise
            if began:
                return
        response = await self._inner.get_response(**dict(zip(_ARGUMENTS, given, strict=False)), **named)
        _remember(self._inner)
        for event in _events(response):
            yield event


async def _opened(model: Model, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Call `stream_response`, which may also be a coroutine function that returns the events.

    Raises:
        NotImplementedError: It returns no asynchronous iterator.
    """
    method: Any = model.stream_response
    stream = method(*given, **named) if callable(method) else None
    if inspect.isawaitable(stream):
        stream = await stream
    if not hasattr(stream, "__aiter__"):
        raise NotImplementedError
    return stream


def _says_unsupported(error: Exception) -> bool:
    if isinstance(error, NotImplementedError):
        return True
    text = str(error)
    # An upstream also reports that tools or images are unsupported, which a second call does not change.
    return bool(_UNSUPPORTED.search(text)) and (not isinstance(error, openai.APIError) or "stream" in text.lower())


def _is_known(model: Model) -> bool:
    try:
        return model in _without_streaming
    except TypeError:  # not hashable
        return False


def _remember(model: Model) -> None:
    if _is_known(model):
        return
    logger.info("the model %s does not stream; streaming clients receive whole answers", type(model).__name__)
    try:
        _without_streaming.add(model)
    except TypeError:  # not hashable, or without weak references
        return


def _events(answer: ModelResponse) -> Iterator[Any]:
    """Yield the events with which a model streams this answer."""
    numbers = itertools.count()

    def event(cls: Any, kind: str, **fields: Any) -> Any:
        # Not validated: an item of an author's model reaches the SDK as the model returned it.
        return cls.model_construct(type=f"response.{kind}", sequence_number=next(numbers), **fields)

    yield event(types.ResponseCreatedEvent, "created", response=_response(answer, done=False))
    for index, item in enumerate(answer.output):
        yield event(types.ResponseOutputItemAddedEvent, "output_item.added", item=_begun(item), output_index=index)
        at = {"item_id": getattr(item, "id", None) or getattr(item, "call_id", None) or "", "output_index": index}
        if item.type == "message":
            for part_index, part in enumerate(item.content):
                yield from _part_events(event, part, {**at, "content_index": part_index})
        elif item.type == "reasoning":
            for part_index, summary in enumerate(item.summary or ()):
                where = {**at, "summary_index": part_index}
                cls = types.ResponseReasoningSummaryTextDeltaEvent
                yield event(cls, "reasoning_summary_text.delta", delta=summary.text, **where)
            for part_index, content in enumerate(item.content or ()):
                where = {**at, "content_index": part_index}
                yield event(types.ResponseReasoningTextDeltaEvent, "reasoning_text.delta", delta=content.text, **where)
        elif item.type == "function_call":
            delta, done = types.ResponseFunctionCallArgumentsDeltaEvent, types.ResponseFunctionCallArgumentsDoneEvent
            yield event(delta, "function_call_arguments.delta", delta=item.arguments, **at)
            yield event(done, "function_call_arguments.done", arguments=item.arguments, name=item.name, **at)
        yield event(types.ResponseOutputItemDoneEvent, "output_item.done", item=item, output_index=index)
    yield event(types.ResponseCompletedEvent, "completed", response=_response(answer, done=True))


def _part_events(event: Any, part: Any, at: dict[str, Any]) -> Iterator[Any]:
    refusal = part.type == "refusal"
    empty = part.model_copy(update={"refusal": ""} if refusal else {"text": "", "annotations": []})
    yield event(types.ResponseContentPartAddedEvent, "content_part.added", part=empty, **at)
    if refusal:
        yield event(types.ResponseRefusalDeltaEvent, "refusal.delta", delta=part.refusal, **at)
        yield event(types.ResponseRefusalDoneEvent, "refusal.done", refusal=part.refusal, **at)
    else:
        yield event(types.ResponseTextDeltaEvent, "output_text.delta", delta=part.text, logprobs=[], **at)
        yield event(types.ResponseTextDoneEvent, "output_text.done", text=part.text, logprobs=[], **at)
    yield event(types.ResponseContentPartDoneEvent, "content_part.done", part=part, **at)


def _begun(item: Any) -> Any:
    """Return an item as it is before its first delta."""
    if item.type == "message":
        return item.model_copy(update={"content": [], "status": "in_progress"})
    return item.model_copy(update={"arguments": ""}) if item.type == "function_call" else item


def _response(answer: ModelResponse, *, done: bool) -> types.Response:
    used = answer.usage
    usage = types.ResponseUsage.model_construct(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        total_tokens=used.total_tokens,
        input_tokens_details=used.input_tokens_details,
        output_tokens_details=used.output_tokens_details,
    )
    return types.Response.model_construct(
        id=answer.response_id or FAKE_RESPONSES_ID,
        created_at=0,
        model="",
        object="response",
        output=list(answer.output) if done else [],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        status="completed" if done else "in_progress",
        usage=usage if done else None,
    )
