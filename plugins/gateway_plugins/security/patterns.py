"""Does a pattern mean a name? Whole segments only, in any case.

It never matches by prefix: `tools` is not `tools_evil`.
"""


def matches(pattern: str, subject: str) -> bool:
    """Whether `pattern` means `subject`.

    Args:
        pattern: Segments joined by `/`; `*` is any one segment, `**` any number of them.
        subject: An id or a name.
    """
    return _match(pattern.casefold().split("/"), subject.casefold().split("/"))


def _match(pattern: list[str], subject: list[str]) -> bool:
    for position, segment in enumerate(pattern):
        if segment == "**":
            rest = pattern[position + 1 :]
            return any(_match(rest, subject[start:]) for start in range(position, len(subject) + 1))
        if position >= len(subject) or segment not in ("*", subject[position]):
            return False
    return len(pattern) == len(subject)
