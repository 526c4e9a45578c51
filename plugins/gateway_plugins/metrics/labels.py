"""Keeps the values of labels few, whatever comes in: each new value is a new series, for ever.

It knows no metric.
"""

UNKNOWN = "_unknown"
"""What stands for every value too many."""


class FewValues:
    """The first values that come are kept; what comes after them is `_unknown`.

    For what agents and plugins choose, such as the names of models and tools. What clients choose is looked up instead.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or `_unknown`."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return UNKNOWN
        self._known.add(value)
        return value
