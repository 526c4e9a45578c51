"""Pairs the tool calls of a conversation with their results.

Clients' histories and stored memories contain calls without ids, ids that repeat in each round, and results that are
missing, repeated or elsewhere. OpenAI's API rejects all of these.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define

_CALL, _RESULT = "function_call", "function_call_output"


@define(eq=False)
class _Entry:
    item: Mapping[str, Any]
    at: int
    round: int
    """Calls without anything but reasoning between them are one round."""
    result: "_Entry | None" = None
    used: bool = False

    @property
    def given(self) -> str:
        return str(self.item.get("call_id") or "")


def pair_calls(items: Any) -> Any:
    """Return a conversation in which each function call has a unique id, and one result directly behind its round.

    A call without a result gets "(no result)". A result without a call becomes a user message, because its content must
    not be lost.

    Args:
        items: Text, or items of the Responses format; not modified.
    """
    if not isinstance(items, list):
        return items
    calls, results = _entries(items)
    if not calls and not results:
        return items
    _match(calls, results)
    return _ordered(items, calls, results)


def _entries(items: Sequence[Any]) -> tuple[list[_Entry], list[_Entry]]:
    calls: list[_Entry] = []
    results: list[_Entry] = []
    number, inside = 0, False
    for at, item in enumerate(items):
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == _CALL:
            number += not inside
            inside = True
            calls.append(_Entry(item, at, number))
        elif kind != "reasoning":
            inside = False
        if kind == _RESULT:
            results.append(_Entry(item, at, number))
    return calls, results


def _match(calls: list[_Entry], results: list[_Entry]) -> None:
    """Assign the results: by the id before the next call of the same id, by the place, by the id anywhere."""
    by_id: dict[str, list[_Entry]] = defaultdict(list)
    behind: dict[int, list[_Entry]] = defaultdict(list)
    for result in results:
        by_id[result.given].append(result)
        behind[result.round].append(result)
    same: dict[str, list[_Entry]] = defaultdict(list)
    for call in calls:
        same[call.given].append(call)
    for given, group in same.items():
        if not given:
            continue
        for call in group:
            until = next((other.at for other in group if other.round > call.round), None)
            free = (each for each in by_id[given] if not each.used and each.at > call.at)
            _assign(call, next((each for each in free if until is None or each.at < until), None))
    for call in calls:
        if call.result is None:
            free = (each for each in behind[call.round] if not each.used and each.given not in same)
            _assign(call, next((each for each in free if each.at > call.at), None))
    for call in calls:
        if call.result is None and not call.given:
            _assign(call, next((each for each in behind[call.round] if not each.used and not each.given), None))
    for call in calls:
        if call.result is None and call.given:
            _assign(call, next((result for result in by_id[call.given] if not result.used), None))


def _assign(call: _Entry, result: _Entry | None) -> None:
    if result is not None:
        call.result, result.used = result, True


def _ordered(items: Sequence[Any], calls: list[_Entry], results: list[_Entry]) -> list[Any]:
    by_place = {entry.at: entry for entry in (*calls, *results)}
    answered = {(call.given, str(call.result.item.get("output"))) for call in calls if call.result is not None}
    taken: set[str] = set()
    ordered: list[Any] = []
    waiting: list[Any] = []
    for at, item in enumerate(items):
        entry = by_place.get(at)
        kind = item.get("type") if isinstance(item, Mapping) else None
        if waiting and kind not in (_CALL, "reasoning"):
            ordered += waiting
            waiting = []
        if entry is None:
            ordered.append(item)
        elif kind == _CALL:
            call_id = entry.given if entry.given and entry.given not in taken else f"call_{uuid.uuid4().hex[:24]}"
            taken.add(call_id)
            ordered.append({**item, "call_id": call_id})
            found = entry.result.item if entry.result is not None else {"type": _RESULT, "output": "(no result)"}
            waiting.append({**found, "call_id": call_id})
        elif not entry.used and (entry.given, str(item.get("output"))) not in answered:
            ordered.append({"role": "user", "content": f"Result of a tool: {_text(item.get('output'))}"})
    return ordered + waiting


def _text(output: Any) -> str:
    parts = output if isinstance(output, list) else [output]
    return "\n".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in parts)
