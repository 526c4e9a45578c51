"""Saves process-wide settings before an agent's code runs, and restores those that it changed.

The settings are declared in two tables: those of Python and of the operating system in `process_settings.py`, those of
the SDK in `global_settings.py`.
"""

import logging
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

logger = logging.getLogger(__name__)

MISSING: Any = object()
"""The value of an item that does not exist."""

Values = Mapping[str, Any]
_SHOWN = 3
_COMPARABLE = (str, int, float, tuple)


def same(one: Any, other: Any) -> bool:
    """Whether two values are identical, or equal numbers, strings or tuples."""
    return one is other or (type(one) in _COMPARABLE and type(one) is type(other) and one == other)


@frozen(eq=False)
class Setting:
    """A kind of process-wide state: named items, each with a value that is compared by identity or equality."""

    label: str
    """Describes an item to operators; `{}` is its name."""
    read: Callable[[], Values] = field(repr=False)
    restore: Callable[[str, Any], None] = field(repr=False)
    """Sets an item to a value, or deletes it if the value is `MISSING`."""
    advice: str = ""
    """Advice for the author of the module."""
    calls: str = ""
    """Pattern of source code that changes it; the last part of the item's name is searched, too."""
    used_by_imports: bool = False
    """Whether code commonly reads it while it is imported, so that an import fails if it changes meanwhile."""
    keeps_new: bool = False
    """Whether items that did not exist are not changes."""
    unchanged: Callable[[Any, Any], bool] = field(default=same, repr=False)
    """Whether an item's current value counts as unchanged."""


@frozen
class Change:
    """Items of a setting that were changed and restored."""

    setting: Setting
    items: tuple[str, ...]

    def text(self, place: str = "") -> str:
        """Describe the change, such as "the working directory (agent.py:3); reverted; use absolute paths"."""
        where = f" ({place})" if place else ""
        advice = f"; {self.setting.advice}" if self.setting.advice else ""
        more = f" and {len(self.items) - _SHOWN} more" if len(self.items) > _SHOWN else ""
        return f"{self.setting.label.format(', '.join(self.items[:_SHOWN]) + more)}{where}; reverted{advice}"

    def place(self, sources: Iterable[tuple[str, str]]) -> str:
        """Find the line that made the change.

        Args:
            sources: File names and their contents.

        Returns:
            Such as `agent.py:3`; empty if no line matches.
        """
        patterns = [self.setting.calls, *(rf"\b{re.escape(item.rpartition('.')[2])}\b" for item in self.items)]
        for pattern in filter(None, patterns):
            for name, text in sources:
                for number, line in enumerate(text.splitlines(), 1):
                    stripped = line.lstrip()
                    if re.search(pattern, line) and not stripped.startswith(("#", "import ", "from ")):
                        return f"{name}:{number}"
        return ""


class ProcessState:
    """The saved values of settings.

    Args:
        settings: The settings; they are saved at once.
    """

    def __init__(self, settings: Iterable[Setting]) -> None:
        self._saved: dict[Setting, Values] = {setting: {} for setting in settings}
        self.save()

    def save(self) -> None:
        """Save the current values."""
        self._saved = {setting: setting.read() for setting in self._saved}

    def restore(self) -> list[Change]:
        """Restore the items that differ from their saved value, and return them."""
        changes = []
        for setting, saved in self._saved.items():
            changed = (*_different(setting, saved),)
            for item in changed:
                _restore(setting, item, saved.get(item, MISSING))
            if changed:
                changes.append(Change(setting, changed))
                # An item that could not be restored is reported once.
                self._saved[setting] = setting.read()
        return changes


def _different(setting: Setting, saved: Values) -> Iterator[str]:
    current = setting.read()
    for item, value in saved.items():
        if not setting.unchanged(value, current.get(item, MISSING)):
            yield item
    if not setting.keeps_new:
        yield from current.keys() - saved.keys()


def _restore(setting: Setting, item: str, value: Any) -> None:
    try:
        setting.restore(item, value)
    except Exception:
        # Such as a working directory that was deleted. The other settings must be restored nevertheless.
        logger.exception("could not restore %s", setting.label.format(item))


def attributes(owner: Any, *names: str, prefix: str = "") -> dict[str, Any]:
    """Return the arguments `read` and `restore` of a setting whose items are attributes of a module or a class."""

    def read() -> Values:
        return {f"{prefix}{name}": getattr(owner, name, MISSING) for name in names}

    def restore(item: str, value: Any) -> None:
        name = item.removeprefix(prefix)
        if value is MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)

    return {"read": read, "restore": restore}


def single(label: str, read: Callable[[], Any], restore: Callable[[Any], Any], **more: Any) -> Setting:
    """Return a setting with only one item."""
    return Setting(label, lambda: {"": read()}, lambda _, value: restore(value), **more)


_SPECIAL = ("__init__", "__post_init__", "__new__", "__call__", "__import__")


def patched(owners: Mapping[str, Any]) -> Setting:
    """Return the setting for functions and classes of modules, and methods of classes, that an agent may replace.

    Args:
        owners: The modules and classes, by the name that operators see.
    """

    # A method that is added to a class overrides the inherited one.
    inherited = {
        f"{prefix}.{name}": MISSING
        for prefix, owner in owners.items()
        if isinstance(owner, type)
        for base in owner.__mro__[1:-1]
        for name in vars(base)
        if _is_public(name)
    }

    # The last values of each owner and what `read` returned for them, because owners rarely change.
    known: dict[str, tuple[list[Any], Values]] = {}

    def read() -> Values:
        found = inherited.copy()
        for prefix, owner in owners.items():
            values, part = known.get(prefix, ([], {}))
            now = vars(owner).copy()
            if len(values) != len(now) or not all(map(operator.is_, values, now.values())):
                part = {f"{prefix}.{name}": value for name, value in now.items() if _is_code(name, value)}
                known[prefix] = ([*now.values()], part)
            found |= part
        return found

    def restore(item: str, value: Any) -> None:
        prefix, _, name = item.rpartition(".")
        if value is not MISSING:
            setattr(owners[prefix], name, value)
        elif name in vars(owners[prefix]):
            delattr(owners[prefix], name)

    advice = "call your own function instead of replacing a shared one"
    return Setting("{}", read, restore, advice, r"nest_asyncio|patch|inject", keeps_new=True)


def _is_public(name: str) -> bool:
    return not name.startswith("__") or name in _SPECIAL


def _is_code(name: str, value: Any) -> bool:
    # By its type: `isinstance` would load the lazy attributes of `openai`.
    return _is_public(name) and (callable(value) or type(value) in (classmethod, staticmethod, property))
