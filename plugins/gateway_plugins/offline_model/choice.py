"""Chooses which tool or handoff of an agent to call for a message, or none.

This module must not fill arguments or read the SDK's items. Whatever it is asked, it comes to an end: nothing is called
twice for one message, at most three calls are made, and at most one of them is a handoff.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents import FunctionTool, Handoff, Tool
from attrs import field, frozen

from gateway_plugins.offline_model.conversation import Call, Conversation
from gateway_plugins.offline_model.matching import score, stems

_MOST_CALLS = 3


@frozen
class Candidate:
    """A tool or a handoff, as the model sees it."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(repr=False)
    is_handoff: bool = False
    agent_name: str = ""
    """Of a handoff: who takes over."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it goes by."""
        return (self.name, self.agent_name) if self.agent_name else (self.name,)


def choose(
    conversation: Conversation, tools: Sequence[Tool], handoffs: Sequence[Handoff[Any, Any]], tool_choice: Any
) -> Candidate | None:
    """What to call next.

    Args:
        conversation: What was said and called so far.
        tools: Only function tools are considered.
        handoffs: One is taken where it fits better than every tool.
        tool_choice: `ModelSettings.tool_choice`: `none`, `auto`, `required` or a name.
    """
    if tool_choice == "none" or len(conversation.calls) >= _MOST_CALLS:
        return None
    called = {call.name for call in conversation.calls}
    offered = list(_offered(tools, () if conversation.handed_off else handoffs))
    open_to = [candidate for candidate in offered if candidate.name not in called]
    forced = [candidate for candidate in open_to if candidate.name == tool_choice]
    if forced:
        return forced[0]
    if not conversation.has_message and conversation.calls:
        return None
    best = _best(conversation, offered, open_to)
    if best is None and tool_choice == "required":
        return next(iter(open_to), None)
    return best


def _offered(tools: Iterable[Tool], handoffs: Iterable[Handoff[Any, Any]]) -> Iterable[Candidate]:
    for tool in tools:
        if isinstance(tool, FunctionTool):
            yield Candidate(tool.name, tool.description or "", tool.params_json_schema or {})
    for handoff in handoffs:
        schema = handoff.input_json_schema or {}
        yield Candidate(handoff.tool_name, handoff.tool_description or "", schema, True, handoff.agent_name)


def _best(conversation: Conversation, offered: Sequence[Candidate], open_to: Sequence[Candidate]) -> Candidate | None:
    # Whoever takes over begins anew: the words that led to an agent may well lead on to its tool.
    earlier = _since_handoff(conversation.calls)
    covered = stems(*(text for call in earlier for text in _texts(call.name, offered)))
    best, highest = None, 0
    for candidate in open_to:
        # One more call needs a better reason than the first one: its name must be in the message.
        described = candidate.description if not earlier else ""
        reached = score(conversation.message, candidate.names, described, without=covered)
        if reached > highest:
            best, highest = candidate, reached
    return best


def _since_handoff(calls: Sequence[Call]) -> Sequence[Call]:
    last = max((at for at, call in enumerate(calls) if call.handoff_to is not None), default=-1)
    return calls[last + 1 :]


def _texts(name: str, offered: Iterable[Candidate]) -> Iterable[str]:
    """What a call that was made covers: its name and description."""
    yield name
    for candidate in offered:
        if candidate.name == name:
            yield from (*candidate.names, candidate.description)
