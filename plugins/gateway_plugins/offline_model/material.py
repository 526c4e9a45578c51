"""What was said, as pieces to fill a form with. Each piece is handed out once, in the order of the text.

This module must not know of JSON schemas: a field is a name here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway_plugins.offline_model import pieces
from gateway_plugins.offline_model.matching import mentions, stem, stems, words

_SEARCHED = 4000
"""Characters of a text that are searched for pieces; the rest counts only as part of the whole."""

_YES = ("yes", "true")
_NEGATED = r"\b(?:no|not|without|never|disable|skip|don'?t|false)\b(?:\W+\w+){0,2}?\W+"
_OPPOSITE = {"from": "to", "to": "from"}
_DIRECTIONS = {
    "from": "from",
    "origin": "from",
    "source": "from",
    "start": "from",
    "to": "to",
    "destination": "to",
    "target": "to",
    "recipient": "to",
}


def _stems_of(text: str) -> frozenset[str]:
    return frozenset(map(stem, words(text)))


_EXPRESSION = _stems_of("expression formula equation calculation")
_EMAIL = _stems_of("email mail recipient to")
_URL = _stems_of("url uri link website")
_DAY = _stems_of("date day when weekday month")
_COUNT = _stems_of("count amount quantity number times n")
_IDENTIFIER = _stems_of("number id identifier code reference sku")
# The user's own words, whole, are what these ask for.
_WHOLE = _stems_of(
    "input question prompt request query task message instruction problem answer response result summary reply reason"
    " reasoning explanation description output report detail comment thought analysis rationale"
)
# The same, but of a message that says what to do and then with what, it is the latter.
_SUBJECT = _stems_of("text content string sentence paragraph document body phrase")


class Material:
    """The pieces of what was said.

    Args:
        message: What the user wrote.
        outputs: What tools answered, the newest first; numbers and whole texts come from here before the message.
        known: Values by name, such as the fields of a tool's JSON.
        topic: Stems of what the form is about; words of these fill none of its fields.
    """

    def __init__(
        self,
        message: str,
        outputs: Sequence[str] = (),
        known: Mapping[str, Any] | None = None,
        topic: frozenset[str] = frozenset(),
    ) -> None:
        self._message = message.strip()
        self._text = message[:_SEARCHED]
        self._whole = next((text.strip() for text in outputs if text.strip()), self._message)
        self._known = {name.casefold(): value for name, value in (known or {}).items()}
        self._numbers = [number for text in (*outputs, message) for number in pieces.numbers(text[:_SEARCHED])]
        self._quotations = pieces.quotations(self._text)
        self._topic = topic
        self._phrases = pieces.phrases(self._text, topic)

    def known(self, name: str) -> list[Any]:
        """The value that goes by this name, as a list of one, or an empty list."""
        return [self._known[name.casefold()]] if name.casefold() in self._known else []

    def stated(self, name: str) -> str | None:
        """What the text itself calls by this name: `city: Paris`, `city=Paris`."""
        label = r"[\s_-]*".join(map(re.escape, words(name)))
        pattern = rf"(?i)(?<!\w){label}[ \t]*[:=][ \t]*(?:\"([^\"\n]+)\"|([^\s,;\"][^\n,;]{{0,200}}))"
        match = re.search(pattern, self._text) if label else None
        return (match[1] or match[2]).strip() if match else None

    def says(self, phrase: str) -> bool:
        """Whether the message contains these words."""
        return mentions(self._text, phrase)

    def affirms(self, name: str) -> bool | None:
        """Whether the message wants the thing of this name, or not; None where it does not speak of it."""
        wanted = stems(name)
        spoken = [word for word in words(self._text) if stem(word) in wanted]
        if spoken:
            return not re.search(_NEGATED + re.escape(spoken[0]) + r"\b", self._text, re.IGNORECASE)
        return True if any(self.says(word) for word in _YES) else None

    def number(self) -> float | int | None:
        """The next number."""
        return self._numbers.pop(0).value if self._numbers else None

    def number_near(self, name: str) -> float | int | None:
        """The number beside a word of this name: `3 days`, `sides: 20`."""
        wanted = stems(name)
        if _stems_of(name) & _COUNT:
            # `3 dice` tells the count of whatever it is about.
            wanted |= self._topic
        beside = [n for n in self._numbers if stem(n.after) in wanted] + [
            n for n in self._numbers if stem(n.before) in wanted
        ]
        if not beside:
            return None
        self._numbers.remove(beside[0])
        return beside[0].value

    def numbers(self) -> list[float | int]:
        """All numbers that are left."""
        left, self._numbers = self._numbers, []
        return [number.value for number in left]

    def email(self) -> str | None:
        """An e-mail address."""
        return pieces.email(self._text)

    def url(self) -> str | None:
        """A web address."""
        return pieces.url(self._text)

    def date(self) -> str | None:
        """A date in ISO form, with the time if there is one."""
        return pieces.iso_date(self._text)

    def tokens(self) -> list[str]:
        """What stands between spaces, without the punctuation around it."""
        return [token.strip(".,;:!?()\"'") for token in self._text.split()]

    def string(self, name: str) -> str:
        """What fits best where any text may stand; the whole text where nothing does better."""
        asked = _stems_of(name)
        if found := self._special(asked):
            return found
        if self._quotations:
            return self._quotations.pop(0)
        if asked & _SUBJECT:
            return pieces.after_colon(self._message) or self._whole
        if asked & _WHOLE:
            return self._whole
        return self._phrase(name) or self._whole

    def strings(self) -> list[str]:
        """The quotations that are left, or else the parts of a list."""
        if self._quotations:
            left, self._quotations = self._quotations, []
            return left
        listed = (pieces.after_colon(self._whole) or self._whole)[:_SEARCHED]
        parts = (part.strip(" \t.-") for part in re.split(r"\n+|,|;|\band\b", listed))
        return [part for part in parts if part]

    def _special(self, asked: frozenset[str]) -> str | None:
        for field, find in (
            (_EXPRESSION, pieces.expression),
            (_URL, pieces.url),
            (_EMAIL, pieces.email),
            (_DAY, pieces.day),
            (_IDENTIFIER, pieces.identifier),
        ):
            if asked & field and (found := find(self._text)):
                return found
        return None

    def _phrase(self, name: str) -> str | None:
        direction = next((_DIRECTIONS[word] for word in map(str.casefold, words(name)) if word in _DIRECTIONS), "")
        against = _OPPOSITE.get(direction)
        open_to = [phrase for phrase in self._phrases if not against or phrase.preposition != against]
        chosen = next((p for p in open_to if direction and p.preposition == direction), next(iter(open_to), None))
        if chosen is None:
            return None
        self._phrases.remove(chosen)
        return chosen.text
