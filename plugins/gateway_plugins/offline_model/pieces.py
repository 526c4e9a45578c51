"""Finds the pieces of a text that can answer a question: numbers, quotations, names, dates, addresses.

This module must not know what the pieces are for, and it keeps nothing.
"""

import re
from collections.abc import Sequence

from attrs import frozen

from gateway_plugins.offline_model.matching import is_stop_word, stem

_QUOTED = re.compile(
    r""" "([^"\n]{1,300})" | “([^”\n]{1,300})” | «([^»\n]{1,300})» | `([^`\n]{1,300})`
       | (?<!\w)'([^'\n]{1,300})'(?!\w) """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"(?<![\w.,])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_NUMBER_WORDS = {"zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_LETTERS = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"[^\W_][\w'’-]*|[^\w \t]")  # noqa: RUF001
_EXPRESSION = re.compile(r"[-(]{0,8}\d+(?:[.,]\d+)*(?:(?:[ \t]?[-+*/%^×÷()])+[ \t]?\d+(?:[.,]\d+)*)+\){0,8}")  # noqa: RUF001
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]+\.[\w.-]*\w")
_URL = re.compile(r"https?://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)]")
_ISO_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?")
_IDENTIFIER = re.compile(r"(?<![\w.#])#?(?P<name>[A-Za-z]{0,8}[-_]?\d[\w-]*)")
_AFTER_COLON = re.compile(r"[^:\n]{1,80}:(?!//)\s*(?P<rest>\S.*)", re.DOTALL)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PREPOSITIONS = _words("in for of about to at from near named called")
_ARTICLES = _words("a an the")
_WITHIN_NAMES = _words("of de da la le van von")
_BREAKS = _PREPOSITIONS | _words("and or but with then please this next that which who on by is are was")
_DATES = _words(
    "monday tuesday wednesday thursday friday saturday sunday january february march april june july august"
    " september october november december today tomorrow yesterday tonight now"
)
_SENTENCE_ENDS = frozenset(".!?:\n")
_LONGEST_PHRASE = 6
_MOST_DIGITS = 15


@frozen
class Number:
    """A number in a text, and the words beside it."""

    before: str
    value: float | int
    after: str


@frozen
class Phrase:
    """A piece of a text that names something, and the preposition before it, if there is one."""

    text: str
    preposition: str = ""


def numbers(text: str) -> list[Number]:
    """The numbers in a text in their order, also those written as words."""
    text = _ISO_DATE.sub(" ", text)
    found: list[tuple[int, int, float | int]] = []
    for match in _NUMBER.finditer(text):
        digits = match.group().replace(",", "")
        if len(digits) <= _MOST_DIGITS:
            found.append((match.start(), match.end(), float(digits) if "." in digits else int(digits)))
    for match in _LETTERS.finditer(text):
        if match.group().casefold() in _NUMBER_WORDS:
            found.append((match.start(), match.end(), _NUMBER_WORDS[match.group().casefold()]))
    placed = []
    for start, end, value in sorted(found):
        before, after = _LETTERS.findall(text[max(0, start - 30) : start]), _LETTERS.findall(text[end : end + 30])
        placed.append(Number(before[-1] if before else "", value, after[0] if after else ""))
    return placed


def quotations(text: str) -> list[str]:
    """What stands in quotation marks or backticks."""
    found = (next(filter(None, match.groups())).strip() for match in _QUOTED.finditer(text))
    return [quotation for quotation in found if quotation]


def phrases(text: str, topic: frozenset[str]) -> list[Phrase]:
    """Pieces that name something, the likeliest first.

    Those are names after a preposition, other names, words after a preposition; with none of these, the words that
    neither belong to the topic nor are stop words, if they are few.

    Args:
        text: Is searched.
        topic: Stems of words that are no answer.
    """
    tokens = _TOKEN.findall(_EMAIL.sub(" ", _URL.sub(" ", text)))
    after, within, plain = [], [], []
    skip_to = 0
    for at, token in enumerate(tokens):
        if token.casefold() in _PREPOSITIONS:
            start = at + 1 + (tokens[at + 1 : at + 2] != [] and tokens[at + 1].casefold() in _ARTICLES)
            if name := _name_at(tokens, start):
                after.append(Phrase(" ".join(name), token.casefold()))
                skip_to = max(skip_to, start + len(name))
            elif common := _words_at(tokens, start):
                plain.append(Phrase(" ".join(common), token.casefold()))
        elif 0 < at >= skip_to and tokens[at - 1] not in _SENTENCE_ENDS and (name := _name_at(tokens, at)):
            within.append(Phrase(" ".join(name)))
            skip_to = at + len(name)
    found = after + within + plain
    every = _LETTERS.findall(text)
    left = [word for word in every if not is_stop_word(word) and stem(word) not in topic]
    if not found and 1 <= len(left) <= 3 and len(left) < len(every):
        return [Phrase(" ".join(left))]
    return found


def email(text: str) -> str | None:
    """The first e-mail address."""
    return _first(_EMAIL, text)


def url(text: str) -> str | None:
    """The first web address."""
    return _first(_URL, text)


def iso_date(text: str) -> str | None:
    """The first date in ISO form, with the time if there is one."""
    return _first(_ISO_DATE, text)


def day(text: str) -> str | None:
    """The first date in ISO form, or else the first name of a day or month."""
    return iso_date(text) or next((word for word in _LETTERS.findall(text) if word.casefold() in _DATES), None)


def expression(text: str) -> str | None:
    """The first piece of arithmetic."""
    return _first(_EXPRESSION, _ISO_DATE.sub(" ", text))


def identifier(text: str) -> str | None:
    """The first word with a digit in it, such as `AB-12`."""
    match = _IDENTIFIER.search(text)
    return match["name"] if match else None


def after_colon(text: str) -> str | None:
    """What follows the colon that ends an introduction: `Translate this: …`."""
    match = _AFTER_COLON.match(text)
    return match["rest"] if match else None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match.group().strip() if match else None


def _name_at(tokens: Sequence[str], start: int) -> Sequence[str]:
    """The words of a name that begins at a place, such as `Port of Spain`."""
    end = start
    for at, token in enumerate(tokens[start : start + _LONGEST_PHRASE], start):
        if token[0].isupper() and not is_stop_word(token) and token.casefold() not in _DATES:
            end = at + 1
        elif end != at or token not in _WITHIN_NAMES:
            break
    return tokens[start:end]


def _words_at(tokens: Sequence[str], start: int) -> Sequence[str]:
    """The words at a place, up to one that begins something else."""
    end = start
    for token in tokens[start : start + _LONGEST_PHRASE]:
        word = token.casefold()
        if not token[0].isalpha() or word in _BREAKS or word in _DATES or (end == start and is_stop_word(word)):
            break
        end += 1
    return tokens[start:end]
