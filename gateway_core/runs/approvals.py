"""Tool calls that wait for a person: the run's state is kept, and goes on when the chat's next message decides.

The decision belongs to the principal, the chat and the very calls that were shown; it is used once, and expires. What
the question looks like is the surfaces' business.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from agents import RunState
from agents.exceptions import UserError
from attrs import frozen

from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.errors import RunError
from gateway_core.hooks.specs import RecordStore
from gateway_core.types import ApprovalAsked, PendingCall, RunContext

KIND = "approval"
ID = re.compile(r"\bappr_[A-Za-z0-9_-]{22}\b")
_APPROVE = re.compile(r"\s*(?:/?approved?|yes|ok(?:ay)?)\s*[.!]?\s*", re.IGNORECASE)
_REJECT = re.compile(
    r"\s*(?:/?reject(?:ed)?|no|den(?:y|ied))\s*[.!]?\s*(?:[:,]\s*(?P<why>.+))?", re.IGNORECASE | re.DOTALL
)


@frozen
class Verdict:
    """What a person said to a question."""

    approved: bool
    reason: str | None = None
    """Why not, for the model to read."""


def question_of(items: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the question that the last message of a conversation follows."""
    if len(items) < 2 or items[-1].get("role") != "user" or items[-2].get("role") != "assistant":
        return None
    asked = ID.findall(_text(items[-2].get("content")))
    return asked[-1] if asked else None


def verdict_of(said: str) -> Verdict | None:
    """The verdict that a message is, if it does nothing but decide."""
    if _APPROVE.fullmatch(said):
        return Verdict(approved=True)
    if match := _REJECT.fullmatch(said):
        return Verdict(approved=False, reason=match["why"])
    return None


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class Approvals:
    """The questions that are open.

    Args:
        store: Keeps the states of the paused runs.
        seconds: How long a question is open.
    """

    def __init__(self, store: RecordStore, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    async def ask(self, result: Any, run: RunContext) -> ApprovalAsked:
        """Keep a run that was interrupted, and say what to ask."""
        approval_id = f"appr_{secrets.token_urlsafe(16)}"
        calls = tuple(
            PendingCall(item.call_id or "", item.name or "a tool", item.arguments or "{}")
            for item in result.interruptions
        )
        record = {
            "agent_id": run.agent_id,
            "session_id": run.session_id,
            "calls": [call.call_id for call in calls],
            # The author's own context is made anew: only the run's state is kept.
            "state": result.to_state().to_string(context_serializer=lambda _: {}),
        }
        await self._store.put(KIND, approval_id, run.principal.id, orjson.dumps(record), seconds=self.seconds)
        return ApprovalAsked(approval_id, calls, self.seconds)

    async def resume(
        self, question: str, verdict: Verdict, runnable: AgentRunnable, run: RunContext
    ) -> "RunState[Any, Any]":
        """The state of the run that a question is about, with the verdict in it.

        Raises:
            RunError: The question is not open any more, was never this principal's in this chat, or the agent has
                changed since.
        """
        kept = await self._store.get(KIND, question, run.principal.id)
        record = orjson.loads(kept) if kept is not None else {}
        if (
            (record.get("agent_id"), record.get("session_id")) != (run.agent_id, run.session_id)
            # Whoever deletes it first may use it: two messages at once approve once.
            or not await self._store.delete(KIND, question, run.principal.id)
        ):
            raise RunError(
                "there is no such approval to give: it was given already, has expired, or belongs to another chat",
                code="approval_not_found",
                status=400,
            )
        try:
            state = await RunState.from_string(
                runnable.agent, record["state"], context_deserializer=lambda _: runnable.context_for(run)
            )
        except UserError as error:
            raise RunError(
                "the agent has changed since it asked, and cannot go on from there; ask it again",
                code="approval_outdated",
                status=400,
            ) from error
        for item in state.get_interruptions():
            if verdict.approved and item.call_id in record["calls"]:
                state.approve(item)
            else:
                state.reject(item, rejection_message=verdict.reason)
        return state

    async def drop(self, question: str, run: RunContext) -> None:
        """Close a question that was answered with something else, so that no later word can be taken for its answer."""
        await self._store.delete(KIND, question, run.principal.id)
