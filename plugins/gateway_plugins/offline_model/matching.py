"""How much two texts have to do with each other, by the words they share.

This module must not know of tools, agents or messages: it compares texts.
"""

import re
from collections.abc import Iterable

_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]+")
_VOWELS = frozenset("aeiouy")

# Words that say nothing about what is asked, and those with which nearly every tool and handoff describes itself.
_STOP_WORDS = """
    a about above after again all also am an and any anyone anything are as at be because been before being below both
    but by can cannot could did do does doing done down each either else every few for from further had has have having
    he her here hers him his how i if in into is it its itself just kindly let like may me might more most much must my
    no nor not now of off on once one only or other our out over own per please same shall she should so some such than
    that the their them then there these they this those through to too under until up upon us very via was we were what
    when where which while who whom whose why will with within without would yes you your
    don doesn didn isn aren wasn won ve ll re
    agent agents arg args assistant call calls description function functions get gets getting give given gives handle
    handles handoff handoffs know make makes need needs params parameter parameters perform performs provide provided
    provides request requests result results return returns show shows tell tells thank thanks tool tools transfer
    transfers use used user users uses using want wants
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_NAME_WEIGHT = 3
_DESCRIPTION_WEIGHT = 1
_MENTION_WEIGHT = 10


def words(text: str) -> list[str]:
    """The words of a text or of an identifier, as they are written, in order."""
    return _LETTERS.findall(_CAMEL_CASE.sub(" ", text))


def stem(word: str) -> str:
    """A word without its plural, `-ing`, `-ed` and last `e`, in lower case. Crude, and the same for both sides."""
    word = word.casefold()
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and not _VOWELS.isdisjoint(rest):
            word = rest
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 2 and word[-1] == word[-2]:
        word = word[:-1]
    return word


def is_stop_word(word: str) -> bool:
    """Whether a word says nothing about a subject."""
    return len(word) < 2 or word.casefold() in STOP_WORDS


def stems(*texts: str) -> frozenset[str]:
    """The stems of the words that say something."""
    return frozenset(stem(word) for text in texts for word in words(text) if not is_stop_word(word))


def mentions(text: str, phrase: str) -> bool:
    """Whether a text contains a phrase as whole words, in any case; `get_time` is also found as `get time`."""
    parts = re.findall(r"\w+", phrase.casefold().replace("_", " "))
    if not parts:
        return False
    pattern = r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, parts)) + r"(?![^\W_])"
    return re.search(pattern, text.casefold()) is not None


def score(text: str, names: Iterable[str], description: str, *, without: frozenset[str] = frozenset()) -> int:
    """How well a text fits something that has names and a description; 0 is not at all.

    Args:
        text: What a user wrote.
        names: Words in these weigh more than those in the description.
        description: What it says of itself.
        without: Stems in the text that do not count.
    """
    asked = stems(text) - without
    named = stems(*names)
    described = stems(description) - named
    mentioned = any(mentions(text, name) and not stems(name) & without for name in names)
    return (
        _NAME_WEIGHT * len(asked & named) + _DESCRIPTION_WEIGHT * len(asked & described) + _MENTION_WEIGHT * mentioned
    )
