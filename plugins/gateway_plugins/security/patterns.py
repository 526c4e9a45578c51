"""Which names does a pattern mean? Whole segments between slashes, in any case, and never a prefix.

It knows no rule and no level.

A segment is a name, `*` (any one segment) or `**` (any number of segments, also none; at the end of a longer pattern at
least one, so that `labs/**` is what is in `labs` and not an agent called `labs`).
"""

from collections.abc import Iterable, Sequence

Segments = tuple[str, ...]

# Names come from models too, so what is remembered of them has an end.
_REMEMBERED = 4096


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern means a name.

    Args:
        pattern: Such as `labs/*`.
        subject: An id or a name.

    Raises:
        ValueError: It is no pattern.
    """
    return _match(parse(pattern), fold(subject))


def fold(name: str) -> Segments:
    """A name's segments, as they are compared."""
    return tuple(name.casefold().split("/"))


def parse(pattern: str) -> Segments:
    """A pattern's segments.

    Raises:
        ValueError: A segment is empty, or has a `*` beside other characters.
    """
    segments = fold(pattern)
    for segment in segments:
        if not segment or segment != segment.strip():
            raise ValueError("no segment may be empty, or begin or end with a space")
        if "*" in segment and segment not in ("*", "**"):
            raise ValueError("a '*' stands for a whole segment, and '**' for any number of them")
    return segments


def of_agents(segments: Segments) -> Segments:
    """The same for agents' ids and for patterns of them: a top-level agent is also `default/NAME`."""
    if len(segments) != 2 or segments[0] != "default":
        return segments
    return ("*",) if segments[1] == "**" else segments[1:]


class PatternSet:
    """Patterns, of which it tells the first that means a name.

    Args:
        patterns: As written, each with its segments.
    """

    def __init__(self, patterns: Iterable[tuple[str, Segments]]) -> None:
        self._exact: dict[Segments, tuple[int, str]] = {}
        self._wild: list[tuple[int, str, Segments]] = []
        for position, (text, segments) in enumerate(patterns):
            if "*" in segments or "**" in segments:
                self._wild.append((position, text, segments))
            else:
                self._exact.setdefault(segments, (position, text))
        self._known: dict[Segments, str | None] = {}

    def first(self, subject: Segments) -> str | None:
        """The first pattern, as written, that means the name."""
        try:
            return self._known[subject]
        except KeyError:
            found = self._find(subject)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[subject] = found
        return found

    def _find(self, subject: Segments) -> str | None:
        limit, found = self._exact.get(subject, (len(self._wild) + len(self._exact) + 1, None))
        for position, text, segments in self._wild:
            if (found is None or position < limit) and _match(segments, subject):
                return text
        return found


def _match(pattern: Sequence[str], subject: Sequence[str]) -> bool:
    # Where in the name what was read of the pattern may end; no backtracking, so no pattern is slow.
    length, ends = len(subject), {0}
    for position, segment in enumerate(pattern):
        if segment == "**":
            least = 1 if position and position == len(pattern) - 1 else 0
            ends = set(range(min(ends) + least, length + 1))
        else:
            ends = {end + 1 for end in ends if end < length and segment in ("*", subject[end])}
        if not ends:
            return False
    return length in ends
