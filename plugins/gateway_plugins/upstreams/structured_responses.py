"""Finds the JSON in structured answers of the Responses API, in a response and in the events of a stream."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway_plugins.upstreams.structured_text import ObjectText, json_within
from gateway_plugins.upstreams.tool_calls import objects

_DELTA = "response.output_text.delta"


def is_structured(payload: Mapping[str, Any]) -> bool:
    """Whether a request asks for JSON."""
    text = payload.get("text")
    wanted = text.get("format") if isinstance(text, Mapping) else None
    return isinstance(wanted, Mapping) and wanted.get("type") in ("json_schema", "json_object")


def keep_json(item: Any) -> None:
    """Replace the text of a message by the JSON in it, if there is any. Other items stay as they are."""
    if item["type"] == "message":
        for part in objects(item.get("content")):
            if isinstance(part.get("text"), str):
                part["text"] = json_within(part["text"])  # type: ignore[index]


class StructuredEvents:
    """The events of one response, in OpenAI's form, without the text around the JSON of each message."""

    def __init__(self) -> None:
        self._text = ObjectText()
        self._delta: dict[str, Any] = {}

    def read(self, events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield events in place of the given ones."""
        for event in events:
            kind, item = event["type"], event.get("item")
            if kind == _DELTA:
                self._delta = event
                event = {**event, "delta": self._text.feed(event["delta"])}
                if not event["delta"]:
                    continue
            elif kind == "response.completed" or (isinstance(item, Mapping) and item.get("type") == "message"):
                if rest := self._text.rest():
                    yield {**self._delta, "delta": rest}
                self._text = ObjectText()
                for each in (
                    [item] if kind == "response.output_item.done" else event.get("response", {}).get("output", ())
                ):
                    keep_json(each)
            yield event
