"""Finds the JSON in the text of a structured answer, whole or as it arrives."""

import json
import re
from collections.abc import Iterator
from types import UnionType

_OPENING = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()
_MAX_ATTEMPTS = 200
"""Number of places in one text at which JSON may begin. A failed attempt costs a search for lines from the start."""


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
            text = text.lstrip()
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

    Of several, it is the one that the text begins with, as in a stream, or else the longest one. Returns the text
    itself if it contains none.
    """
    if is_json(text):
        return text.strip()
    answer = text.rpartition("</think>")[2].strip()
    found = list(_values(answer))
    if found and answer.startswith(found[0]):
        return found[0]
    return max(found, key=len, default=text)


def _values(text: str) -> Iterator[str]:
    """The JSON objects and arrays in a text, in order."""
    position = 0
    for _ in range(_MAX_ATTEMPTS):
        opening = _OPENING.search(text, position)
        if opening is None:
            return
        start = opening.start()
        try:
            _, position = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            position = max(error.pos, start + 1)  # what was read is a part of broken JSON, not an answer
        except (ValueError, RecursionError):
            return
        else:
            yield text[start:position]


def is_json(text: str, kind: type | UnionType = dict | list) -> bool:
    """Whether a text is a JSON object or array, or only one of the two."""
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
