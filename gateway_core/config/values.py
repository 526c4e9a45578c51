"""Parses single values of settings: text, numbers, durations, sizes, addresses, URLs and secrets.

`converter.py` applies these functions to the keys of tables.
"""

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NewType, get_args

from attrs import field, frozen

from gateway_core.errors import ConfigError

Seconds = NewType("Seconds", float)
"""A duration. Written as a number of seconds, or as text: `500ms`, `30s`, `10m`, `2h`, `90d`."""

Bytes = NewType("Bytes", int)
"""A size. Written as a number of bytes, or as text: `64 KiB`, `10 MiB`, `1 GiB`."""

Timeout = NewType("Timeout", float)
"""A duration that is greater than 0."""

Count = NewType("Count", int)
"""An integer from 1."""

Amount = NewType("Amount", int)
"""An integer from 0."""

Port = NewType("Port", int)
"""The number of a TCP port; 0 selects a free one."""

Size = NewType("Size", int)
"""A number of bytes that is greater than 0."""

MASK = "********"

_MAX_SECONDS = 100 * 365 * 86400.0
LITERAL_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
"""A variable of a shell in text, such as `$HOME`; settings do not replace it."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


@frozen
class Secret:
    """A secret value. `str()` and `repr()` mask it; `reveal()` returns it."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """Return the secret value."""
        return self._value

    def __str__(self) -> str:
        return MASK


class EnvText(str):
    """A value of an environment variable. The type of the setting determines how it is parsed."""


def kind_of(value: Any) -> str:
    """Return what TOML calls a value of this type."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return "text" if isinstance(value, str) else kinds.get(type(value), "a date or time")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word closest to an unknown one, or with all known words if none is close."""
    options = sorted(known)
    folded = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    if close:
        return f"did you mean '{folded[close[0]]}'?"
    return f"known names: {', '.join(options)}" if options else "none are defined"


def as_text(value: Any, _: Any) -> str:
    """Parse text."""
    if isinstance(value, str):
        return str(value)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    raise ConfigError(f"must be text, not {value!r:.100}", hint=f'write "{value}"' if plain else "write text in quotes")


def as_boolean(value: Any, _: Any) -> bool:
    """Parse true or false."""
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, EnvText) and value.strip().lower() in words:
        return words[value.strip().lower()]
    word = words.get(value.strip().lower()) if isinstance(value, str) else None
    hint = "write true or false, without quotes" if word is None else f"write {str(word).lower()}, without quotes"
    raise ConfigError(f"must be true or false, not {value!r:.100}", hint=hint)


def as_integer(value: Any, _: Any) -> int:
    """Parse an integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, EnvText) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    raise ConfigError(f"must be an integer, not {value!r:.100}", hint=_number_hint(value))


def as_number(value: Any, _: Any) -> float:
    """Parse a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, EnvText):
        try:
            return float(value)
        except ValueError:
            pass
    raise ConfigError(f"must be a number, not {value!r:.100}", hint=_number_hint(value))


def _number_hint(value: Any) -> str:
    found = re.fullmatch(r"\s*([+-]?\d+(?:\.\d+)?)\s*", value) if isinstance(value, str) else None
    return f"write {found[1]}, without quotes" if found else "write a number, such as 10"


def in_range(lowest: int, highest: int | None = None) -> Callable[[Any, Any], int]:
    """Return a function that parses an integer and checks its range."""

    def structure(value: Any, _: Any) -> int:
        number = as_integer(value, _)
        if number < lowest or (highest is not None and number > highest):
            limits = f"from {lowest} to {highest}" if highest is not None else f"at least {lowest}"
            raise ConfigError(f"must be {limits}, not {number}", hint=f"such as {max(lowest, 1)}")
        return number

    return structure


def as_quantity(kind: str, units: Mapping[str, float], examples: str) -> Callable[[Any, Any], float]:
    """Return a function that parses a number, or a number with a unit."""

    def structure(value: Any, _: Any) -> float:
        quantity = None
        if isinstance(value, int | float) and not isinstance(value, bool):
            quantity = float(value)
        elif isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)):
            unit = found[2].lower() or ("s" if "s" in units else "")
            quantity = float(found[1]) * units[unit] if unit in units else None
        if quantity is None or not 0 <= quantity < math.inf:
            raise ConfigError(f"not a valid {kind}: {value!r:.100}", hint=f"try {examples}")
        return quantity

    return structure


_duration = as_quantity("duration", _DURATION_UNITS, '"30s", "10m"')
_size = as_quantity("size", _SIZE_UNITS, '"64 KiB", "10 MiB"')


def as_seconds(value: Any, _: Any) -> float:
    """Parse a duration of at most a century; the operating system does not support longer ones."""
    seconds = _duration(value, _)
    if seconds > _MAX_SECONDS:
        raise ConfigError(f"not a valid duration: {value!r:.100}", hint="the maximum is 36500 days")
    return seconds


def as_timeout(value: Any, _: Any) -> float:
    """Parse a duration that is greater than 0."""
    if (seconds := as_seconds(value, _)) == 0:
        raise ConfigError(f"must be greater than 0, not {value!r:.100}", hint='try "30s", "10m"')
    return seconds


def as_bytes(value: Any, _: Any) -> int:
    """Parse a size."""
    return int(_size(value, _))


def as_size(value: Any, _: Any) -> int:
    """Parse a size that is greater than 0."""
    if (size := as_bytes(value, _)) == 0:
        raise ConfigError(f"must be greater than 0, not {value!r:.100}", hint='try "64 KiB", "10 MiB"')
    return size


def as_secret(value: Any, _: Any) -> Secret:
    """Parse a secret, and read its variable or file."""
    if isinstance(value, str):
        if found := LITERAL_VARIABLE.fullmatch(value):
            hint = f'write {{ env = "{found[1]}" }}'
            raise ConfigError(f"variables in text are not replaced: {value!r}", hint=hint)
        return Secret(str(value))
    if isinstance(value, dict) and set(value) == {"env"}:
        name = as_text(value["env"], None)
        if name not in os.environ:
            raise ConfigError(
                f"the environment variable {name} is not set", hint="set the variable, or remove this setting"
            )
        if not os.environ[name].strip():
            raise ConfigError(
                f"the environment variable {name} is empty", hint="set the variable, or remove this setting"
            )
        return Secret(os.environ[name])
    if isinstance(value, dict) and set(value) == {"file"}:
        name = as_text(value["file"], None)
        try:
            text = Path(name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError, RuntimeError) as error:  # such as bytes that are not text, or an unknown user
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ConfigError(
                f"cannot read the file {name!r:.200}: {reason}", hint="write the path of a readable text file"
            ) from error
        if not text:
            raise ConfigError(f"the file {name!r:.200} is empty", hint="write the secret into it")
        return Secret(text)
    raise ConfigError(
        f"must be a secret, not {kind_of(value)}", hint='write text, { env = "NAME" } or { file = "path" }'
    )


def reveal_secrets(value: Any) -> Any:
    """Return a value in which each `{ env = "NAME" }` and `{ file = "path" }` is replaced by the secret's text.

    Raises:
        ConfigError: A variable is not set, or a file cannot be read.
    """
    if isinstance(value, dict) and set(value) in ({"env"}, {"file"}):
        return as_secret(value, None).reveal()
    if isinstance(value, dict):
        return {key: reveal_secrets(inner) for key, inner in value.items()}
    return [reveal_secrets(inner) for inner in value] if isinstance(value, list) else value


def as_split(value: Any) -> list[Any]:
    """Parse a list, whose items a variable separates by commas."""
    if isinstance(value, EnvText):
        value = [EnvText(item.strip()) for item in value.split(",") if item.strip()]
    if not isinstance(value, list):
        hint = f"write [{json.dumps(value)}]" if isinstance(value, str | int | float) else "write [...]"
        raise ConfigError(f"must be a list, not {value!r:.100}", hint=hint)
    return value


def as_choice(value: Any, type_: Any) -> Any:
    """Check that a value is one of those of a `Literal`."""
    options = get_args(type_)
    if value in options:
        return str(value) if isinstance(value, str) else value
    raise ConfigError(
        f"unsupported value: {value!r:.100}", hint=f"one of: {', '.join(str(option) for option in options if option)}"
    )
