"""Collects the tool calls of a chat answer from the parts in which servers send them.

Servers omit, repeat and reuse both the ids and the indexes of calls, so neither identifies a call.
"""

import json
import uuid
from collections.abc import Collection, Mapping, Sized
from typing import Any

from attrs import define, field, frozen

from gateway_plugins.upstreams.framing import DialectError
from gateway_plugins.upstreams.structured_text import is_json

MAX_CALLS = 1000
"""Maximum number of calls, or items, in one answer."""
MAX_ARGUMENTS = 1024 * 1024
"""Maximum number of characters of the arguments of one call."""
_CHEAP = 4096
"""Number of characters of arguments that can be parsed again for each part."""

_FIELDS = frozenset({"index", "id", "type", "function", "name", "arguments", "parameters", "input"})


@frozen
class _Part:
    """An entry of a list of tool calls: a call, or in a stream a part of one."""

    name: str
    """As it was sent: a part of a name in some streams."""
    given: str
    """The id that the server gave; not unique."""
    index: int | str | None
    arguments: str
    extra: dict[str, Any]
    """Fields of the provider, which expects them back, such as Gemini's signature of its thoughts."""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "_Part":
        function = entry.get("function")
        function = function if isinstance(function, Mapping) else entry
        index = entry.get("index")
        extra = {key: value for key, value in entry.items() if key not in _FIELDS and isinstance(value, str | Mapping)}
        return cls(
            plain_text(function.get("name")),
            plain_text(entry.get("id")),
            index if isinstance(index, int | str) else None,
            arguments_text(function),
            extra,
        )


@define(eq=False)
class _Call:
    id: str
    name: str
    given: str
    arguments: str = ""
    extra: dict[str, Any] = field(factory=dict)
    _first: str = ""
    _last: str = ""
    _parse_at: int = 0
    """Number of characters from which incomplete arguments are parsed again."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing need follow."""
        if len(self.arguments) < self._parse_at:
            return False
        complete = is_json(self.arguments or "{}", dict)
        if not complete and len(self.arguments) > _CHEAP:
            self._parse_at = 2 * len(self.arguments)
        return complete

    def add(self, part: _Part) -> None:
        """Add the arguments and other fields of a part."""
        if len(self.arguments) < _CHEAP and self.arguments.strip() == "{}" and part.arguments.lstrip().startswith("{"):
            self.arguments = self._first = ""  # it was a placeholder
        # The only reference to a string is extended in place; otherwise each part would copy it.
        text, self.arguments = self.arguments, ""
        text += part.arguments
        check_arguments(text)
        self.arguments = text
        self._first = self._first or part.arguments
        self._last = part.arguments or self._last
        self.extra |= part.extra

    def complete_arguments(self) -> str:
        """The arguments. Some servers send all of them again with each part."""
        repeated = self._last != self._first and self._last.startswith(self._first)
        if repeated and is_json(self._last, dict) and not is_json(self.arguments, dict):
            return self._last
        return whole_arguments(self.arguments)


@define
class CallCollector:
    """The tool calls of one answer.

    Args:
        known_ids: The ids of tool calls that the conversation contains. A call of this answer never has one of them.
        tools: The names of the tools that the model may call.
    """

    known_ids: set[str]
    tools: frozenset[str] = frozenset()
    _calls: list[_Call] = field(factory=list)
    _by_index: dict[int | str | None, _Call] = field(factory=dict)

    def add(self, entries: Any, *, streamed: bool) -> None:
        """Add a list of tool calls, or of parts of them if they are streamed.

        Raises:
            DialectError: There are too many calls, or the arguments of one are too long.
        """
        touched: set[_Call] = set()
        for entry in objects([entries] if isinstance(entries, Mapping) else entries):
            part = _Part.of(entry)
            call = self._continued(part, touched) if streamed else None
            if call is None:
                call = _Call(unique_id(part.given, "call_", self.known_ids), part.name, part.given)
                self.known_ids.add(call.id)
                self._calls.append(call)
                check_count(self._calls)
            self._by_index[part.index] = call
            touched.add(call)
            call.add(part)

    def take(self, *, with_index: bool, cut_off: bool) -> list[dict[str, Any]]:
        """Remove the calls, and return them in OpenAI's form.

        Args:
            with_index: Whether they are for a stream.
            cut_off: Whether the answer was, so that calls with incomplete arguments cannot run.
        """
        calls = [
            {
                **call.extra,
                **({"index": position} if with_index else {}),
                "id": call.id,
                "type": "function",
                "function": {"name": tool_name(call.name, self.tools), "arguments": call.complete_arguments()},
            }
            for position, call in enumerate(self._calls)
            if not cut_off or is_json(call.complete_arguments(), dict)
        ]
        self._calls, self._by_index = [], {}
        return calls

    def _continued(self, part: _Part, touched: set[_Call]) -> _Call | None:
        """The call that a part belongs to; `None` if it begins one.

        Args:
            part: The part.
            touched: The calls of the entries before it in the same list.
        """
        last = self._calls[-1] if self._calls else None
        call = self._by_index.get(part.index)
        if not part.name:
            # Servers that repeat an index may still name the call of each part.
            if part.given and (call is None or call.given != part.given):
                call = next((each for each in reversed(self._calls) if each.given == part.given), call)
            return call or last  # usually, only the first part of a call has a name
        if call is None and part.index is None:
            call = last
        if call is not None and self._completes_name(part, call):
            call.name += part.name
            return call
        return None if call is None or _begins(part, call, again=call in touched) else call

    def _completes_name(self, part: _Part, call: _Call) -> bool:
        """Whether a part continues the name of a call, which some servers send in pieces."""
        if call.arguments or (part.given and part.given != call.given) or call.name in self.tools:
            return False
        return any(name.startswith(call.name + part.name) for name in self.tools)


def _begins(part: _Part, call: _Call, *, again: bool) -> bool:
    """Whether a part with a name begins another call than the one that its index stands for.

    Args:
        part: The part.
        call: The call.
        again: Whether the same list has an entry of the call, so that two complete entries are two calls.
    """
    if part.name != call.name or (part.given and call.given and part.given != call.given):
        return True
    if not call.is_complete:
        return False
    if again:
        return True
    if call.arguments in ("", "{}"):
        # Nothing distinguishes two equal calls without arguments from one whose name is repeated, but the index or id.
        same = part.index is not None or bool(part.given)
        return part.arguments == call.arguments and not (same and not call.arguments)
    return part.arguments.lstrip().startswith("{")


def check_arguments(text: Sized) -> None:
    """Check the length of the arguments of a call.

    Raises:
        DialectError: They are too long.
    """
    if len(text) > MAX_ARGUMENTS:
        raise DialectError(f"the upstream sent a tool call with more than {MAX_ARGUMENTS} characters of arguments")


def check_count(items: Collection[Any]) -> None:
    """Check the number of calls or items.

    Raises:
        DialectError: There are too many.
    """
    if len(items) > MAX_CALLS:
        raise DialectError(f"the upstream sent more than {MAX_CALLS} tool calls or items")


def unique_id(given: str, prefix: str, taken: set[str]) -> str:
    """Return an id if it is not taken, else a new one with the prefix."""
    return given if given and given not in taken else f"{prefix}{uuid.uuid4().hex[:24]}"


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The JSON objects in a list; none if it is not a list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def tool_name(given: str, tools: Collection[str]) -> str:
    """Return the name of the tool that a call names, which servers surround by spaces or prefix by a namespace."""
    name = given.strip()
    for candidate in (given, name, name.removeprefix("functions."), name.rpartition(".")[2]):
        if candidate in tools:
            return candidate
    return name


def whole_arguments(text: str) -> str:
    """Return the complete arguments of a call as an object in JSON, which some servers encode twice or leave empty."""
    if not text.strip() or text.strip() == "null":
        return "{}"
    if text.lstrip().startswith('"'):
        try:
            inner = json.loads(text)
        except ValueError:
            return text
        return whole_arguments(inner) if not inner.strip() or is_json(inner, dict) else text
    return text


def arguments_text(function: Mapping[str, Any]) -> str:
    """The arguments of a call as JSON text, or a part of it."""
    value = next((function[key] for key in ("arguments", "parameters", "input") if function.get(key) is not None), "")
    return plain_text(value) if isinstance(value, str) else json.dumps(value)


def plain_text(value: Any) -> str:
    """A name or an id as text without lone surrogates, which no request could carry."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def count(value: Any) -> int:
    """A number of tokens; 0 for an odd value."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
