"""Converts TOML tables to attrs classes. Errors name the source and the key, and suggest the closest known key.

The module does not define any tables; `config/settings.py` does. `values.py` and `hosts.py` parse the values.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from gateway_core.config import hosts, values
from gateway_core.config.places import Places
from gateway_core.config.problems import Problems
from gateway_core.errors import ConfigError
from gateway_core.net.addresses import Network

T = TypeVar("T")


class SettingsConverter:
    """Validates tables and converts them to attrs classes.

    Args:
        places: The file or environment variable of each setting.
        base: The base folder of relative paths in the settings.
    """

    def __init__(self, places: Places, base: Path) -> None:
        self._places = places
        self._converter = _make_converter(base)

    def structure(self, table: Mapping[str, Any], cls: type[T], path: tuple[str, ...]) -> T:
        """Convert a table to an instance of `cls`.

        Args:
            table: The table as parsed.
            cls: The attrs class of the table.
            path: The path of the table, such as `("plugins", "security")`.

        Raises:
            ConfigError: A key is unknown, missing or of the wrong type. The error names file, table and key; it is a
                `MultipleConfigError` if there are several.
        """
        try:
            return self._converter.structure(table, cls)
        except Exception as error:
            problems = Problems()
            for message, hint, where in _problems(error):
                with problems.collected():
                    table_name = f"[{'.'.join((*path, *where[:-1]))}]"
                    source = f"{table_name} {where[-1]}" if where else table_name
                    located = ConfigError(message, source=source, hint=hint)
                    self._places.locate(located)
                    raise located from error
            problems.raise_found()
            raise


_Problem = tuple[str, str | None, tuple[str, ...]]
"""Message, hint and key path."""


def _problems(error: BaseException, path: tuple[str, ...] = ()) -> Iterator[_Problem]:
    """Yield the innermost errors of a cattrs error.

    A class that checks its own settings raises a `ConfigError` whose source is the setting's name, or its path in the
    table, with dots.
    """
    path = (*path, *_keys_of_notes(error))
    if isinstance(error, BaseExceptionGroup):
        extra = [each for each in error.exceptions if isinstance(each, ForbiddenExtraKeysError)]
        unknown = [problem for each in extra for problem in _unknown_keys(each, path)]
        suggested = {hint for _, hint, _ in unknown}
        for inner in error.exceptions:
            # A misspelt required key is one mistake.
            missing = inner.args[0] if isinstance(inner, KeyError) and inner.args else None
            if inner not in extra and f"did you mean '{missing}'?" not in suggested:
                yield from _problems(inner, path)
        yield from unknown
    elif isinstance(error, KeyError):
        yield "required key is missing", f"add {path[-1]} = ..." if path else None, path
    elif isinstance(error, ConfigError):
        yield error.message, error.hint, (*path, *error.source.split(".")) if error.source else path
    else:
        yield str(error) or type(error).__name__, None, path


def _unknown_keys(error: ForbiddenExtraKeysError, path: tuple[str, ...]) -> Iterator[_Problem]:
    known = [attribute.name for attribute in attrs.fields(error.cl)]
    for extra in sorted(error.extra_fields):
        yield "unknown key", values.did_you_mean(extra, known), (*path, extra)


def _keys_of_notes(error: BaseException) -> Iterator[str]:
    for note in getattr(error, "__notes__", []):
        name = getattr(note, "name", None)
        if name is None:
            name = getattr(note, "index", None)
        if name is not None:
            yield str(name)


def _has_origin(wanted: Any) -> Callable[[Any], bool]:
    return lambda type_: get_origin(type_) is wanted


def _is_a(wanted: Any) -> Callable[[Any], bool]:
    return lambda type_: type_ == wanted


def _as_table(structure: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    """Check that a value is a table before it is converted."""

    def checked(value: Any, type_: Any) -> T:
        if not isinstance(value, Mapping):
            # The value is not quoted: it may be a header or a variable with a secret.
            kind = values.kind_of(value)
            raise ConfigError(f"must be a table, not {kind}", hint="write { key = value }, or a table in [...]")
        return structure(value, type_)

    return checked


def _make_converter(base: Path) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, values.as_text)
    converter.register_structure_hook(bool, values.as_boolean)
    converter.register_structure_hook(int, values.as_integer)
    converter.register_structure_hook(float, values.as_number)
    converter.register_structure_hook(values.Secret, values.as_secret)

    def as_path(value: Any, _: Any) -> Path:
        text = values.as_text(value, _)
        if found := re.search(r"\$\{?\w+\}?", text):
            raise ConfigError(f"variables in text are not replaced: {found[0]!r}", hint="write the path itself")
        try:
            return base / Path(text).expanduser()
        except RuntimeError:
            raise ConfigError(f"unknown user in the path {text!r:.200}", hint="write the whole path") from None

    converter.register_structure_hook(Path, as_path)
    converter.register_structure_hook(Path | None, lambda value, _: as_path(value, _) if value != "" else None)
    converter.register_structure_hook(Network, hosts.as_network)
    for type_, parse in (
        (values.Seconds, values.as_seconds),
        (values.Timeout, values.as_timeout),
        (values.Bytes, values.as_bytes),
        (values.Size, values.as_size),
        (values.Count, values.in_range(1)),
        (values.Amount, values.in_range(0)),
        (values.Port, values.in_range(0, 65535)),
        (hosts.Host, hosts.as_host),
        (hosts.Address, hosts.as_address),
        (hosts.Url, hosts.as_url),
        (hosts.AllowedHost, hosts.as_allowed_host),
        (hosts.Origin, hosts.as_origin),
    ):
        converter.register_structure_hook_func(_is_a(type_), parse)
    converter.register_structure_hook_func(
        _has_origin(list),
        lambda value, t: [converter.structure(item, get_args(t)[0]) for item in values.as_split(value)],
    )
    converter.register_structure_hook_func(_has_origin(Literal), values.as_choice)
    converter.register_structure_hook_factory(
        attrs.has,
        lambda cls: _as_table(
            make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
            if cls is not values.Secret
            else values.as_secret
        ),
    )
    converter.register_structure_hook_factory(
        _has_origin(dict), lambda t: _as_table(cattrs.gen.mapping_structure_factory(t, converter))
    )
    return converter
