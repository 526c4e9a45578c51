"""Reads typed fields out of a JSON object, and refuses a wrong type with the field's path.

A field that is `null` counts as absent, as OpenAI's own server has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from gateway_core.errors import InvalidRequestError

T = TypeVar("T")


def text(source: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """A string, or nothing."""
    return _typed(source, name, path, (str,), "a string")


def required_text(source: Mapping[str, Any], name: str, path: str = "") -> str:
    """A string that must be there and not be empty."""
    value = text(source, name, path)
    if not value:
        raise InvalidRequestError(f"'{path}{name}' is required, as a string", param=f"{path}{name}")
    return value


def boolean(source: Mapping[str, Any], name: str, path: str = "") -> bool | None:
    """True, false, or nothing."""
    return _typed(source, name, path, (bool,), "true or false")


def integer(source: Mapping[str, Any], name: str, *, low: int, high: int | None = None) -> int | None:
    """A whole number between two bounds, or nothing."""
    value = _typed(source, name, "", (int,), "a whole number")
    _check_range(value, name, low, high)
    return value


def number(source: Mapping[str, Any], name: str, *, low: float, high: float) -> float | None:
    """A number between two bounds, or nothing."""
    value = _typed(source, name, "", (int, float), "a number")
    _check_range(value, name, low, high)
    return value


def mapping(source: Mapping[str, Any], name: str, path: str = "") -> dict[str, Any] | None:
    """An object, or nothing."""
    return _typed(source, name, path, (dict,), "an object")


def listing(source: Mapping[str, Any], name: str, path: str = "") -> list[Any] | None:
    """A list, or nothing."""
    return _typed(source, name, path, (list,), "a list")


def few_enough(values: Sequence[Any], name: str, most: int) -> None:
    """Refuse a list that is too long."""
    if len(values) > most:
        raise InvalidRequestError(f"'{name}' has more than {most} entries", param=name)


def wrong(path: str, wanted: str, value: Any) -> InvalidRequestError:
    """The error for a value of the wrong kind; it names the path, and not the value."""
    return InvalidRequestError(f"'{path}' must be {wanted}, and is {_kind(value)}", param=path)


def _typed(source: Mapping[str, Any], name: str, path: str, types: tuple[type[T], ...], wanted: str) -> T | None:
    value = source.get(name)
    if value is None:
        return None
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise wrong(f"{path}{name}", wanted, value)
    return value


def _check_range(value: float | None, name: str, low: float, high: float | None) -> None:
    if value is not None and (value < low or (high is not None and value > high)):
        wanted = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise InvalidRequestError(f"'{name}' must be {wanted}", param=name)


def _kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else kinds[type(value)]
