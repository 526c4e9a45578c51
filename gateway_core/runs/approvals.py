"""Pauses runs whose tool calls require human approval: stores the run's state and resumes it on the user's decision.

An approval is bound to the principal, the chat and the calls that were shown; it can be used once, and it expires. The
HTTP surfaces render the question.
"""

import base64
import hmac
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
from gateway_core.runs import paused_state
from gateway_core.runs.call_details import call_arguments, call_id, call_name
from gateway_core.runs.run_events import ApprovalAsked, PendingCall
from gateway_core.types import RunContext

KIND = "approval"
_CHAT_KIND = "approval_in_chat"
_KEY_KIND, _KEY_OWNER = "approval_key", "gateway"
_PREFIX = "appr_"
_RANDOM_BYTES = 10
"""An id consists of these, and of 6 bytes that mark it as one of this gateway."""
ID = re.compile(r"\bappr_[A-Za-z0-9_-]{22}\b")
_QUESTION_CHARACTERS = 10_000
"""The id is at the end of an approval request; a longer text is not searched."""
# For text without surrounding whitespace. Two optional runs of whitespace must not be adjacent: matching a long run
# would take quadratic time.
_APPROVE = re.compile(r"(?:/?approved?|yes|ok(?:ay)?)(?:\s*[.!])?", re.IGNORECASE)
_REJECT = re.compile(
    r"(?:/?reject(?:ed)?|no|den(?:y|ied))(?:\s*[.!])?(?:\s*[:,]\s*(?P<why>.+))?", re.IGNORECASE | re.DOTALL
)


@frozen
class Verdict:
    """A user's decision on an approval request."""

    approved: bool
    reason: str | None = None
    """The reason for a rejection; the model receives it."""

    def as_text(self) -> str:
        """Return the message with which a user would decide so."""
        if self.approved:
            return "approve"
        return f"reject: {self.reason}" if self.reason else "reject"


def question_of(items: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the id of the approval request that the last message of a conversation replies to."""
    if len(items) < 2 or items[-1].get("role") != "user" or items[-2].get("role") != "assistant":
        return None
    asked = ID.findall(_text(items[-2].get("content"))[-_QUESTION_CHARACTERS:])
    return asked[-1] if asked else None


def verdict_of(said: str) -> Verdict | None:
    """Parse a message as a verdict; `None` if it contains anything else."""
    said = said.strip()
    if _APPROVE.fullmatch(said):
        return Verdict(approved=True)
    if match := _REJECT.fullmatch(said):
        return Verdict(approved=False, reason=match["why"])
    return None


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _chat(run: RunContext) -> str:
    return f"{run.agent_id}\n{run.session_id}"


def _signed(random: bytes, key: bytes) -> str:
    tag = hmac.digest(key, random, "sha256")[: 16 - _RANDOM_BYTES]
    return _PREFIX + base64.urlsafe_b64encode(random + tag).decode().rstrip("=")


class Approvals:
    """The pending approval requests.

    Args:
        store: Stores the states of paused runs.
        seconds: Lifetime of an approval request.
    """

    def __init__(self, store: RecordStore, seconds: float) -> None:
        self._store = store
        self._key: bytes | None = None
        self.seconds = seconds

    async def ask(self, result: Any, run: RunContext) -> ApprovalAsked:
        """Store an interrupted run, and return the approval request for it."""
        approval_id = _signed(secrets.token_bytes(_RANDOM_BYTES), await self._signing_key())
        calls = tuple(
            PendingCall(call_id(item.raw_item), call_name(item.raw_item, item.name), call_arguments(item.raw_item))
            for item in result.interruptions
        )
        record = {
            "agent_id": run.agent_id,
            "session_id": run.session_id,
            "calls": [call.call_id for call in calls],
            "state": paused_state.save(result),
        }
        await self._store.put(KIND, approval_id, run.principal.id, orjson.dumps(record), seconds=self.seconds)
        if run.session_id is not None:
            value = approval_id.encode()
            await self._store.put(_CHAT_KIND, _chat(run), run.principal.id, value, seconds=self.seconds)
        return ApprovalAsked(approval_id, calls, self.seconds)

    async def take_from_chat(self, run: RunContext) -> str | None:
        """Return the id of the approval request that is pending in the run's chat.

        Only the next message of the chat can refer to the request in this way: a later "yes" may be the answer to
        another question.
        """
        if (
            run.session_id is None
            or (stored := await self._store.get(_CHAT_KIND, _chat(run), run.principal.id)) is None
        ):
            return None
        await self._store.delete(_CHAT_KIND, _chat(run), run.principal.id)
        question = stored.decode()
        return question if await self._store.get(KIND, question, run.principal.id) is not None else None

    async def issued(self, question: str, run: RunContext) -> bool:
        """Return whether this gateway issued an approval request, even if it is not pending any more.

        An agent whose model is another gateway shows the requests of that one: the user's answer is for the other one.
        """
        if not ID.fullmatch(question):
            return True  # malformed: reported as not found
        if await self._store.get(KIND, question, run.principal.id) is not None:
            return True  # also one of an earlier version, which did not mark its ids
        random = base64.urlsafe_b64decode(f"{question.removeprefix(_PREFIX)}==")[:_RANDOM_BYTES]
        return hmac.compare_digest(question, _signed(random, await self._signing_key()))

    async def _signing_key(self) -> bytes:
        """Return the key that marks the ids of this gateway, which is stored with the approval requests."""
        if self._key is None:
            stored = await self._store.get(_KEY_KIND, "key", _KEY_OWNER)
            if stored is None:
                await self._store.put(_KEY_KIND, "key", _KEY_OWNER, secrets.token_bytes(32), seconds=None)
                stored = await self._store.get(_KEY_KIND, "key", _KEY_OWNER)  # another process may have stored its own
            self._key = stored or secrets.token_bytes(32)
        return self._key

    async def resume(
        self, question: str, verdict: Verdict, runnable: AgentRunnable, run: RunContext
    ) -> "RunState[Any, Any]":
        """Return the stored state of a paused run, with the verdict applied.

        Raises:
            RunError: The approval request is not pending, belongs to another principal or chat, or the agent has
                changed since.
        """
        stored = await self._store.get(KIND, question, run.principal.id)
        record = orjson.loads(stored) if stored is not None else {}
        if (
            (record.get("agent_id"), record.get("session_id")) != (run.agent_id, run.session_id)
            # Only the request that deletes the record may use it, so that concurrent messages approve once.
            or not await self._store.delete(KIND, question, run.principal.id)
        ):
            raise RunError(
                "no such approval request is pending: it was already answered, has expired, or belongs to another chat",
                code="approval_not_found",
                status=400,
            )
        await self._forget_in_chat(question, run)
        try:
            state = await paused_state.restore(record["state"], runnable, run)
        except UserError as error:
            raise RunError(
                "the agent has changed since it requested the approval, so the run cannot resume; send the original "
                "message again",
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
        """Delete an approval request that the user did not decide on, so that no later message can decide on it."""
        await self._store.delete(KIND, question, run.principal.id)
        await self._forget_in_chat(question, run)

    async def _forget_in_chat(self, question: str, run: RunContext) -> None:
        if run.session_id is None:
            return
        if await self._store.get(_CHAT_KIND, _chat(run), run.principal.id) == question.encode():
            await self._store.delete(_CHAT_KIND, _chat(run), run.principal.id)
