"""Limits the cardinality of labels, because every new label value creates a permanent time series."""

UNKNOWN = "_unknown"
"""The label value that replaces values beyond the limit."""


class CardinalityLimit:
    """Passes the first distinct values through, and replaces all later ones by `_unknown`.

    Use it for values that agents and plugins choose, such as model and tool names. Values that clients choose must be
    looked up instead.

    Args:
        limit: Maximum number of distinct values.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Returns the value, or `_unknown` if it is beyond the limit."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return UNKNOWN
        self._known.add(value)
        return value
