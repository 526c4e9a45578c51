"""Collects the errors of settings, so that all mistakes are reported at once instead of one at each start."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from gateway_core.errors import GatewayError, MultipleConfigError, errors_of

T = TypeVar("T")
S = TypeVar("S")


class Problems:
    """The errors that were found so far."""

    def __init__(self) -> None:
        self.found: list[GatewayError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect the errors that the block raises."""
        try:
            yield
        except GatewayError as error:
            self.found += errors_of(error)

    def raise_found(self) -> None:
        """Raise what was found.

        Raises:
            GatewayError: The only error.
            MultipleConfigError: Several errors.
        """
        if len(self.found) > 1:
            raise MultipleConfigError(self.found)
        if self.found:
            raise self.found[0]


def named_tables(
    table: Mapping[str, Any], own: Callable[[dict[str, Any]], S], nested: Callable[[str, dict[str, Any]], T]
) -> tuple[S, dict[str, T]]:
    """Convert the table of a plugin that contains tables with names of the user's choice.

    Args:
        table: The table as parsed.
        own: Converts the plugin's own settings.
        nested: Converts one of the tables, given its name.

    Returns:
        The result of `own`, and those of `nested` by name.

    Raises:
        ConfigError: A setting is invalid; all mistakes are reported at once.
    """
    problems = Problems()
    found: list[S] = []
    tables: dict[str, T] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            with problems.collected():
                tables[name] = nested(name, value)
    with problems.collected():
        found.append(own({key: value for key, value in table.items() if not isinstance(value, dict)}))
    problems.raise_found()
    return found[0], tables
