"""Matches patterns against names: whole segments between slashes, case-insensitively, never prefixes.

It does not depend on rules or levels.

A segment is a name, `*` (exactly one segment) or `**` (zero or more segments; at the end of a longer pattern at least
one, so that `labs/**` matches everything in `labs` but not an agent named `labs`).
"""

from collections.abc import Iterable, Sequence

Segments = tuple[str, ...]

# Names also come from models, so the cache is bounded.
_MAX_CACHED = 4096


def fold(name: str) -> Segments:
    """Split a name into case-folded segments."""
    return tuple(name.casefold().split("/"))


def parse(pattern: str) -> Segments:
    """Parse a pattern into segments.

    Raises:
        ValueError: A segment is empty, has leading or trailing spaces, or combines `*` with other characters.
    """
    segments = fold(pattern)
    for segment in segments:
        if not segment or segment != segment.strip():
            raise ValueError("a segment must not be empty, or begin or end with a space")
        if "*" in segment and segment not in ("*", "**"):
            raise ValueError("'*' must be a whole segment; '**' matches any number of segments")
    return segments


def of_agents(segments: Segments) -> Segments:
    """Normalize the id of an agent, or a pattern for such ids: `default/NAME` is the top-level agent `NAME`."""
    if len(segments) != 2 or segments[0] != "default":
        return segments
    return ("*",) if segments[1] == "**" else segments[1:]


class PatternSet:
    """An ordered list of patterns; finds the first that matches a name.

    Args:
        patterns: Pairs of the pattern as written and its segments.
    """

    def __init__(self, patterns: Iterable[tuple[str, Segments]]) -> None:
        self._exact: dict[Segments, tuple[int, str]] = {}
        self._wild: list[tuple[int, str, Segments]] = []
        for position, (text, segments) in enumerate(patterns):
            if "*" in segments or "**" in segments:
                self._wild.append((position, text, segments))
            else:
                self._exact.setdefault(segments, (position, text))
        self._cache: dict[Segments, str | None] = {}

    def first(self, subject: Segments) -> str | None:
        """Return the first pattern, as written, that matches the name; `None` if none matches."""
        try:
            return self._cache[subject]
        except KeyError:
            found = self._find(subject)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[subject] = found
        return found

    def _find(self, subject: Segments) -> str | None:
        limit, found = self._exact.get(subject, (len(self._wild) + len(self._exact) + 1, None))
        for position, text, segments in self._wild:
            if (found is None or position < limit) and _match(segments, subject):
                return text
        return found


def _match(pattern: Sequence[str], subject: Sequence[str]) -> bool:
    # `ends` holds the positions in the name where the pattern so far can end. Without backtracking no pattern is slow.
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
