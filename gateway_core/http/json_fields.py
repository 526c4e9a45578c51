"""Reads typed fields from a JSON object and rejects wrong types with the field's path.

A `null` field counts as missing, as on OpenAI's server.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from gateway_core.errors import InvalidRequestError

T = TypeVar("T")

MAX_EFFORT_CHARACTERS = 20
VERBOSITIES = ("low", "medium", "high")


def text(source: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """Returns a string, or `None` if the field is missing."""
    return _typed(source, name, path, (str,), "a string")


def required_text(source: Mapping[str, Any], name: str, path: str = "") -> str:
    """Returns a non-empty string; raises if the field is missing or empty."""
    value = text(source, name, path)
    if not value:
        raise InvalidRequestError(f"'{path}{name}' is required and must be a non-empty string", param=f"{path}{name}")
    return value


def boolean(source: Mapping[str, Any], name: str, path: str = "") -> bool | None:
    """Returns a boolean, or `None` if the field is missing."""
    return _typed(source, name, path, (bool,), "a boolean")


def integer(source: Mapping[str, Any], name: str, *, low: int, high: int | None = None) -> int | None:
    """Returns an integer within bounds, or `None` if the field is missing. JSON has one type of number: 5.0 is 5."""
    if isinstance(given := source.get(name), float) and given.is_integer():
        source = {name: int(given)}
    value = _typed(source, name, "", (int,), "an integer")
    _check_range(value, name, low, high)
    return value


def number(source: Mapping[str, Any], name: str, *, low: float, high: float) -> float | None:
    """Returns a number within bounds, or `None` if the field is missing."""
    value = _typed(source, name, "", (int, float), "a number")
    _check_range(value, name, low, high)
    return value


def mapping(source: Mapping[str, Any], name: str, path: str = "") -> dict[str, Any] | None:
    """Returns an object, or `None` if the field is missing."""
    return _typed(source, name, path, (dict,), "an object")


def string_map(source: Mapping[str, Any], name: str) -> dict[str, str] | None:
    """Returns an object whose values are strings, or `None` if the field is missing."""
    found = mapping(source, name)
    for key, value in (found or {}).items():
        if not isinstance(value, str):
            raise wrong_type(f"{name}.{key}", "a string", value)
    return found


def listing(source: Mapping[str, Any], name: str, path: str = "") -> list[Any] | None:
    """Returns an array, or `None` if the field is missing."""
    return _typed(source, name, path, (list,), "an array")


def one_of(source: Mapping[str, Any], name: str, options: tuple[str, ...], path: str = "") -> str | None:
    """Returns one of the allowed strings, or `None` if the field is missing."""
    value = text(source, name, path)
    if value is not None and value not in options:
        raise InvalidRequestError(f"'{path}{name}' must be one of {', '.join(options)}", param=f"{path}{name}")
    return value


def effort(source: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """Returns a reasoning effort, or `None` if the field is missing.

    Any short word is accepted: the upstream decides which efforts exist, and new models bring new ones.
    """
    value = text(source, name, path)
    if value is not None and not (value.isalnum() and len(value) <= MAX_EFFORT_CHARACTERS):
        raise InvalidRequestError(f"'{path}{name}' must be a word such as 'high'", param=f"{path}{name}")
    return value


def an_object(value: Any, path: str) -> dict[str, Any]:
    """Returns a value that must be an object."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    return value


def check_length(values: Sequence[Any], name: str, limit: int) -> None:
    """Rejects an array with more than `limit` entries."""
    if len(values) > limit:
        raise InvalidRequestError(f"'{name}' has more than {limit} entries", param=name)


def wrong_type(path: str, expected: str, value: Any) -> InvalidRequestError:
    """Creates the error for a value of the wrong type; it contains the path, but not the value."""
    return InvalidRequestError(f"'{path}' must be {expected}, not {_kind(value)}", param=path)


def unsupported_value(path: str, value: str, *, supported: str | None = None) -> InvalidRequestError:
    """Creates the error for a value that the gateway does not know."""
    return InvalidRequestError(
        f"'{path}' has the unsupported value '{value[:40]}'",
        param=path,
        hint=f"supported values: {supported}" if supported else None,
        code=None if supported else "unsupported",
    )


def _typed(source: Mapping[str, Any], name: str, path: str, types: tuple[type[T], ...], expected: str) -> T | None:
    value = source.get(name)
    if value is None:
        return None
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise wrong_type(f"{path}{name}", expected, value)
    return value


def _check_range(value: float | None, name: str, low: float, high: float | None) -> None:
    if value is not None and (value < low or (high is not None and value > high)):
        expected = f"between {low} and {high}" if high is not None else f"at least {low}"
        raise InvalidRequestError(f"'{name}' must be {expected}", param=name)


def _kind(value: Any) -> str:
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else kinds[type(value)]
