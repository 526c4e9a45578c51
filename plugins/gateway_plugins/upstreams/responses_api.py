"""Reads the answers of the Responses API, whole and streamed."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from openai import AsyncStream
from openai._models import construct_type
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from gateway_core import record_finish_reason
from gateway_plugins.upstreams.answer_stream import AnswerStream, objects_in
from gateway_plugins.upstreams.framing import Event, read_body
from gateway_plugins.upstreams.responses_dialect import ResponseAnswer, item_ids
from gateway_plugins.upstreams.structured_responses import StructuredEvents, is_structured, keep_json

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class ResponseEventStream(AnswerStream[ResponseStreamEvent], AsyncStream[ResponseStreamEvent]):
    """A stream of the events of one response."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        payload = self.take_payload()
        self._answer = ResponseAnswer(item_ids(payload.get("input")))
        self._json = StructuredEvents() if is_structured(payload) else None

    def read(self, event: Event) -> Iterable[ResponseStreamEvent]:
        """Return the events in OpenAI's form for an event."""
        return [
            built
            for value in objects_in(event)
            for built in self._built(self._answer.event({"type": event.name, **value}))
        ]

    def finish(self) -> Iterable[ResponseStreamEvent]:
        """Return the last events."""
        events = self._built(self._answer.end())
        record_finish_reason(self._answer.finish_reason)
        return events

    def _built(self, events: Iterable[dict[str, Any]]) -> list[ResponseStreamEvent]:
        return [_event(each) for each in (events if self._json is None else self._json.read(events))]


STREAM = ResponseEventStream


def read(content: bytes, payload: Mapping[str, Any]) -> Response:
    """Read a whole answer, or a stream that was sent in place of one.

    Raises:
        DialectError: It is invalid, or reports a failure.
    """
    answer = ResponseAnswer(item_ids(payload.get("input")))
    events, _ = read_body(content)
    for event in events:
        for value in objects_in(event):
            answer.event({"type": event.name, **value})
    answer.end()
    record_finish_reason(answer.finish_reason)
    assert answer.response is not None
    if is_structured(payload):
        for item in answer.response["output"]:
            keep_json(item)
    return cast(Response, _build(Response, answer.response))


def _event(value: dict[str, Any]) -> ResponseStreamEvent:
    try:
        return cast(ResponseStreamEvent, _EVENT.validate_python(value))
    except ValidationError:  # missing or unknown fields are accepted
        pass
    if "response" in value:
        value = {**value, "response": _build(Response, value["response"])}
    return cast(ResponseStreamEvent, construct_type(type_=ResponseStreamEvent, value=value))


def _build(kind: Any, value: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError:  # missing or unknown fields are accepted
        return construct_type(type_=kind, value=value)
