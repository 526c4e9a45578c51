"""Finds the JSON in the text of a structured answer, whole or as it arrives."""

import json
import re
from types import UnionType

_FENCE = re.compile(r"```[a-zA-Z]*[ \t\r]*\n(.*?)```", re.DOTALL)


class ObjectText:
    """The text of a structured answer: a JSON object is passed on as it arrives, anything else is withheld.

    Text behind the object, such as the end of a code fence, is dropped.
    """

    def __init__(self) -> None:
        self._held: list[str] | None = []
        self._depth = 0
        self._in_string = self._escaped = self._closed = False

    def feed(self, text: str) -> str:
        """Returns the part of the text that can be passed on."""
        if self._held is not None:
            if self._held or not text.lstrip().startswith("{"):
                if self._held or text.strip():
                    self._held.append(text)
                return ""
            self._held = None
        for position, character in enumerate(text):
            if self._closed:
                return text[:position]
            self._step(character)
        return text

    def rest(self) -> str:
        """Returns the withheld text at the end: the JSON in it, else all of it."""
        return json_within("".join(self._held)) if self._held else ""

    def _step(self, character: str) -> None:
        if self._in_string:
            self._in_string = self._escaped or character != '"'
            self._escaped = character == "\\" and not self._escaped
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._closed = self._depth <= 0


def json_within(text: str) -> str:
    """The JSON object or array in a text: as it is, behind `</think>`, in a code fence, or between other words.

    Returns the text itself if it contains none.
    """
    answer = text.rpartition("</think>")[2]
    candidates = [text, answer, *_FENCE.findall(answer)]
    spans = [(answer.find(opening), answer.rfind(closing)) for opening, closing in ("{}", "[]")]
    # An object or array that encloses the other one begins first.
    candidates += [answer[start : end + 1] for start, end in sorted(spans) if 0 <= start < end]
    return next((each.strip() for each in candidates if is_json(each)), text)


def is_json(text: str, kind: type | UnionType = dict | list) -> bool:
    """Whether a text is a JSON object or array, or only one of the two."""
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
