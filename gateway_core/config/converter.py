"""Converts TOML tables to attrs classes. Errors name the source and the key, and suggest the closest known key.

The module does not define any tables; `config/settings.py` does.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin

import attrs
import cattrs
from attrs import field, frozen
from cattrs.errors import ForbiddenExtraKeysError

from gateway_core.errors import ConfigError
from gateway_core.net.addresses import Network

T = TypeVar("T")

Seconds = NewType("Seconds", float)
"""A duration. Written as a number of seconds, or as text: `500ms`, `30s`, `10m`, `2h`, `90d`."""

Bytes = NewType("Bytes", int)
"""A size. Written as a number of bytes, or as text: `64 KiB`, `10 MiB`, `1 GiB`."""

MASK = "********"

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


class SettingsConverter:
    """Validates tables and converts them to attrs classes.

    Args:
        origins: The file or environment variable of each setting, by key path.
        base: The base folder of relative paths in the settings.
    """

    def __init__(self, origins: Mapping[tuple[str, ...], str], base: Path) -> None:
        self._origins = origins
        self._converter = _make_converter(base)

    def structure(self, table: Mapping[str, Any], cls: type[T], path: tuple[str, ...]) -> T:
        """Convert a table to an instance of `cls`.

        Args:
            table: The table as parsed.
            cls: The attrs class of the table.
            path: The path of the table, such as `("plugins", "security")`.

        Raises:
            ConfigError: A key is unknown, missing or of the wrong type. The error names file, table and key.
        """
        try:
            return self._converter.structure(table, cls)
        except Exception as error:
            (message, hint), where = _first_problem(error)
            origin = next((self._origins[p] for p in _prefixes((*path, *where)) if p in self._origins), "the settings")
            table_name = f"[{'.'.join((*path, *where[:-1]))}]"
            place = f"{table_name} {where[-1]}" if where else table_name
            raise ConfigError(message, source=f"{origin}: {place}", hint=hint) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word closest to an unknown one, or with all known words if none is close."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known names: {', '.join(options)}" if options else "none are defined"


def _prefixes(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for length in range(len(path), 0, -1):
        yield path[:length]


def _first_problem(error: BaseException) -> tuple[tuple[str, str | None], tuple[str, ...]]:
    """Return the message and hint of the first innermost error of a cattrs error, and its key path.

    A class that checks its own settings raises a `ConfigError` whose source is the setting's name, or its path in the
    table, with dots.
    """
    path: list[str] = []
    while isinstance(error, BaseExceptionGroup):
        inner = error.exceptions[0]
        path.extend(_keys_of_notes(inner))
        error = inner
    if isinstance(error, ForbiddenExtraKeysError):
        extra = sorted(error.extra_fields)[0]
        known = [a.name for a in attrs.fields(error.cl)]
        return ("unknown key", did_you_mean(extra, known)), (*path, extra)
    if isinstance(error, KeyError):
        return ("required key is missing", None), tuple(path)
    if isinstance(error, ConfigError):
        return (error.message, error.hint), (*path, *error.source.split(".")) if error.source else tuple(path)
    return (str(error) or type(error).__name__, None), tuple(path)


def _keys_of_notes(error: BaseException) -> Iterator[str]:
    for note in getattr(error, "__notes__", []):
        name = getattr(note, "name", None)
        if name is None:
            name = getattr(note, "index", None)
        if name is not None:
            yield str(name)


def _text(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise ConfigError(f"must be text, not {value!r}")


def _boolean(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, EnvText) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ConfigError(f"must be true or false, not {value!r}")


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, EnvText) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    raise ConfigError(f"must be an integer, not {value!r}")


def _number(value: Any, _: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, EnvText):
        try:
            return float(value)
        except ValueError:
            pass
    raise ConfigError(f"must be a number, not {value!r}")


def _quantity(kind: str, units: Mapping[str, float], examples: str) -> Callable[[Any, Any], float]:
    def structure(value: Any, _: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value) if isinstance(value, str) else None
        unit = (found[2].lower() if found else "") or ("s" if "s" in units else "")
        if found and unit in units:
            return float(found[1]) * units[unit]
        raise ConfigError(f"not a valid {kind}: {value!r}", hint=f"try {examples}")

    return structure


def _network(value: Any, _: Any) -> Network:
    try:
        return ipaddress.ip_network(_text(value, _), strict=False)
    except ValueError as error:
        raise ConfigError(str(error), hint='try "127.0.0.1", "10.0.0.0/8"') from None


def _secret(value: Any, _: Any) -> Secret:
    if isinstance(value, str):
        return Secret(str(value))
    if isinstance(value, dict) and set(value) == {"env"}:
        name = _text(value["env"], None)
        if name not in os.environ:
            raise ConfigError(
                f"the environment variable {name} is not set", hint="set the variable, or remove this setting"
            )
        return Secret(os.environ[name])
    if isinstance(value, dict) and set(value) == {"file"}:
        name = _text(value["file"], None)
        try:
            return Secret(Path(name).expanduser().read_text(encoding="utf-8").strip())
        except (OSError, ValueError, RuntimeError) as error:  # such as bytes that are not text, or an unknown user
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ConfigError(f"cannot read the file {name!r:.200}: {reason}") from error
    raise ConfigError('must be text, { env = "NAME" } or { file = "path" }')


def reveal_secrets(value: Any) -> Any:
    """Return a value in which each `{ env = "NAME" }` and `{ file = "path" }` is replaced by the secret's text.

    Raises:
        ConfigError: A variable is not set, or a file cannot be read.
    """
    if isinstance(value, dict) and set(value) in ({"env"}, {"file"}):
        return _secret(value, None).reveal()
    if isinstance(value, dict):
        return {key: reveal_secrets(inner) for key, inner in value.items()}
    return [reveal_secrets(inner) for inner in value] if isinstance(value, list) else value


def _split(value: Any) -> list[Any]:
    if isinstance(value, EnvText):
        value = [EnvText(item.strip()) for item in value.split(",") if item.strip()]
    if not isinstance(value, list):
        raise ConfigError(f"must be a list, not {value!r}")
    return value


def _choice(value: Any, type_: Any) -> Any:
    options = get_args(type_)
    if value in options:
        return str(value) if isinstance(value, str) else value
    raise ConfigError(
        f"unsupported value: {value!r}", hint=f"one of: {', '.join(str(option) for option in options if option)}"
    )


def _has_origin(wanted: Any) -> Callable[[Any], bool]:
    return lambda type_: get_origin(type_) is wanted


def _make_converter(base: Path) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Secret, _secret)
    converter.register_structure_hook(Path, lambda value, _: base / Path(_text(value, _)).expanduser())
    converter.register_structure_hook(
        Path | None, lambda value, _: base / Path(value).expanduser() if _text(value, _) else None
    )
    converter.register_structure_hook(Network, _network)
    seconds = _quantity("duration", _DURATION_UNITS, '"30s", "10m"')
    size = _quantity("size", _SIZE_UNITS, '"64 KiB", "10 MiB"')
    converter.register_structure_hook_func(lambda t: t == Seconds, seconds)
    converter.register_structure_hook_func(lambda t: t == Bytes, lambda value, t: int(size(value, t)))
    converter.register_structure_hook_func(
        _has_origin(list),
        lambda value, t: [converter.structure(item, get_args(t)[0]) for item in _split(value)],
    )
    converter.register_structure_hook_func(_has_origin(Literal), _choice)
    return converter
