"""Patterns for names with slashes, such as `labs/*`: the one pattern language of agents, tools and modules.

Matching is case-insensitive and covers the whole name, segment by segment:

- `*` matches one segment, and within a segment any characters: `mail_*` matches `mail_send`;
- `**` matches zero or more segments; at the end of a longer pattern at least one, so that `labs/**` matches everything
  in `labs`, but not an agent named `labs`.

Matching takes linear time per segment, because names also come from models.
"""

from collections.abc import Iterable, Sequence

Segments = tuple[str, ...]

# Names also come from models, so the cache is bounded.
_MAX_CACHED = 4096


def split_name(name: str) -> Segments:
    """Split a name into case-folded segments."""
    return tuple(name.casefold().split("/"))


def parse_pattern(pattern: str) -> Segments:
    """Parse a pattern into segments.

    Raises:
        ValueError: A segment is empty, has leading or trailing spaces, or combines `**` with other characters.
    """
    segments = split_name(pattern)
    for segment in segments:
        if not segment or segment != segment.strip():
            raise ValueError("a segment must not be empty, or begin or end with a space")
        if "**" in segment and segment != "**":
            raise ValueError("'**' must be a whole segment; it matches any number of segments")
    return segments


class PatternSet:
    """An ordered list of patterns; finds the first that matches a name.

    Args:
        patterns: Pairs of the pattern as written and its segments.
    """

    def __init__(self, patterns: Iterable[tuple[str, Segments]]) -> None:
        self._exact: dict[Segments, tuple[int, str]] = {}
        self._wild: list[tuple[int, str, Segments]] = []
        for position, (text, segments) in enumerate(patterns):
            if any("*" in segment for segment in segments):
                self._wild.append((position, text, segments))
            else:
                self._exact.setdefault(segments, (position, text))
        self._cache: dict[Segments, str | None] = {}

    def first(self, name: Segments) -> str | None:
        """Return the first pattern, as written, that matches the name; `None` if none matches."""
        try:
            return self._cache[name]
        except KeyError:
            found = self._find(name)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[name] = found
        return found

    def _find(self, name: Segments) -> str | None:
        limit, found = self._exact.get(name, (len(self._wild) + len(self._exact) + 1, None))
        for position, text, segments in self._wild:
            if (found is None or position < limit) and _match(segments, name):
                return text
        return found


def _match(pattern: Sequence[str], name: Sequence[str]) -> bool:
    # `ends` holds the positions in the name where the pattern so far can end. Without backtracking no pattern is slow.
    length, ends = len(name), {0}
    for position, segment in enumerate(pattern):
        if segment == "**":
            least = 1 if position and position == len(pattern) - 1 else 0
            ends = set(range(min(ends) + least, length + 1))
        else:
            ends = {end + 1 for end in ends if end < length and _match_segment(segment, name[end])}
        if not ends:
            return False
    return length in ends


def _match_segment(pattern: str, text: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in middle:
        position = text.find(part, position, end)
        if position < 0:
            return False
        position += len(part)
    return True
