"""Reads what a run hands to its model: the user's last message, and what was called since.

It must not raise on anything it finds: items that it does not know are passed over.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents.handoffs import get_conversation_history_wrappers
from attrs import frozen

_RECORD = re.compile(r"\d+\.\s+(?P<record>.*)")


@frozen
class Call:
    """A tool or handoff that was called for the user's last message."""

    name: str
    output: str = ""
    """What came back, as text."""

    @property
    def handoff_to(self) -> str | None:
        """The agent that took over, if this was a handoff."""
        answer = _parsed(self.output)
        if isinstance(answer, Mapping) and answer.keys() == {"assistant"}:
            return str(answer["assistant"])
        return None


@frozen
class Conversation:
    """What matters in a conversation to whoever has to answer next."""

    message: str
    """The user's last message; empty if it has no text."""
    attachments: int
    """How many images, files and sounds came with it."""
    calls: tuple[Call, ...]
    """What was called since, in order."""
    is_new: bool
    """Whether no answer in prose was given yet."""
    has_message: bool
    """Whether there is a message of the user at all."""

    @property
    def handed_off(self) -> bool:
        """Whether the message went from one agent to another already."""
        return any(call.handoff_to is not None for call in self.calls)

    @property
    def outputs(self) -> list[str]:
        """What tools answered, the newest first."""
        return [call.output for call in reversed(self.calls) if call.handoff_to is None]


def read(input: Any) -> Conversation:
    """Read a run's input: a string, or a list of items of any kind."""
    items = [{"role": "user", "content": input}] if isinstance(input, str) else list(_unfolded(input))
    last = max((at for at, item in enumerate(items) if _get(item, "role") == "user"), default=-1)
    content = _get(items[last], "content") if last >= 0 else ""
    answers = (text_of(_get(item, "content")) for item in items if _get(item, "role") == "assistant")
    return Conversation(
        message=text_of(content),
        attachments=_attachments(content),
        calls=tuple(_calls(items[last + 1 :])),
        is_new=not any(answer.strip() and not isinstance(_parsed(answer), Mapping) for answer in answers),
        has_message=last >= 0,
    )


def text_of(content: Any) -> str:
    """The text of a message or of a tool's output. Lone surrogates, which no wire carries, are replaced."""
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    if isinstance(content, Mapping) or not isinstance(content, Sequence | Iterable) or isinstance(content, bytes):
        return _text_of_part(content)
    return "\n".join(filter(None, map(_text_of_part, content)))


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return text_of(part)
    for name in ("text", "refusal"):
        if isinstance(found := _get(part, name), str):
            return text_of(found)
    return ""


def _attachments(content: Any) -> int:
    if isinstance(content, str) or not isinstance(content, Sequence):
        return 0
    return sum(
        str(_get(part, "type")).startswith(("input_", "image", "file")) and not _text_of_part(part) for part in content
    )


def _calls(items: Sequence[Any]) -> Iterable[Call]:
    outputs = {
        str(_get(item, "call_id")): text_of(_get(item, "output"))
        for item in items
        if str(_get(item, "type")).endswith("_call_output")
    }
    named = set()
    for item in items:
        if _get(item, "type") == "function_call":
            named.add(str(_get(item, "call_id")))
            yield Call(str(_get(item, "name")), outputs.get(str(_get(item, "call_id")), ""))
    # Where the conversation is kept elsewhere, only the newest items arrive, and an output may come without its call.
    for call_id, output in outputs.items():
        if call_id not in named:
            yield Call("", output)


def _unfolded(items: Any) -> Iterable[Any]:
    """The items, those that the SDK wrote into a summary at a handoff among them."""
    if not isinstance(items, Iterable):
        return
    start, end = get_conversation_history_wrappers()
    for item in items:
        text = text_of(_get(item, "content")) if _get(item, "role") == "assistant" else ""
        if start in text and end in text:
            for line in text.partition(start)[2].rpartition(end)[0].splitlines():
                if match := _RECORD.match(line.strip()):
                    yield _recorded(match["record"])
        else:
            yield item


def _recorded(record: str) -> Mapping[str, Any]:
    """An item as the SDK's summary writes it: `user: …`, `function_call: {…}`, or JSON."""
    whole = _parsed(record)
    if isinstance(whole, Mapping):
        return whole
    label, _, rest = record.partition(":")
    fields = _parsed(rest)
    if isinstance(fields, Mapping) and label not in ("user", "assistant", "system", "developer"):
        return {**fields, "type": label}
    return {"role": label.split(" ")[0], "content": rest.strip()}


def _get(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def _parsed(text: str) -> Any:
    """A text as JSON, or None."""
    try:
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None
