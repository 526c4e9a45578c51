"""Stores runs that wait for tools of their client, and resumes them with the client's results.

A stored run is bound to the principal, the agent and the chat; the ids of its calls, which the client receives in
place of the model's, contain the key of the record. The record remains until it expires, so that a client can repeat a
request. Without it, a run continues from the client's messages alone.
"""

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson
from agents import RunState
from agents.exceptions import UserError

from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.errors import GatewayError
from gateway_core.hooks.specs import RecordStore
from gateway_core.runs import paused_state
from gateway_core.runs.call_details import call_arguments, call_id
from gateway_core.runs.client_tools import ClientTools
from gateway_core.runs.run_events import ClientCallsAsked, PendingCall
from gateway_core.sdk import compat
from gateway_core.types import ClientTool, RunContext

logger = logging.getLogger(__name__)

KIND = "client_calls"
_ID = re.compile(r"call_([A-Za-z0-9_-]{22})_[0-9]{1,3}")
_OUTPUT = "function_call_output"
_NO_RESULT = "(no result)"


class ClientCalls:
    """The runs that wait for their clients.

    Args:
        store: Stores the states of the runs.
        seconds: Lifetime of a state.
    """

    def __init__(self, store: RecordStore, seconds: float) -> None:
        self._store = store
        self.seconds = seconds

    async def ask(self, result: Any, run: RunContext, tools: ClientTools) -> ClientCallsAsked | None:
        """Store an interrupted run, and return its calls for the client; `None` without any.

        A failure to store it is logged: the client can continue without the state.
        """
        asked = [item for item in result.interruptions if tools.owns(item.agent, item.name)]
        if not asked:
            return None
        key = secrets.token_urlsafe(16)
        calls = tuple(
            PendingCall(f"call_{key}_{position}", item.name, call_arguments(item.raw_item))
            for position, item in enumerate(asked)
        )
        used = [tools.definition(name) for name in {call.name for call in calls}]
        record = {
            "agent_id": run.agent_id,
            "session_id": run.session_id,
            "calls": {call.call_id: call_id(item.raw_item) for call, item in zip(calls, asked, strict=True)},
            "tools": [attrs.asdict(tool) for tool in used],
        }
        try:
            record["state"] = paused_state.save(result)
            await self._store.put(KIND, key, run.principal.id, orjson.dumps(record), seconds=self.seconds)
        except (GatewayError, UserError) as error:
            logger.warning(
                "request %s: the state of a run that waits for its client could not be stored; the run will continue "
                "from the client's messages: %s",
                run.request_id,
                error,
            )
        return ClientCallsAsked(calls)

    async def resume(
        self,
        items: Sequence[Mapping[str, Any]],
        runnable: AgentRunnable,
        run: RunContext,
        tools: ClientTools,
        max_turns: int,
    ) -> "RunState[Any, Any] | None":
        """Return the state of the run whose calls the end of a conversation answers.

        `None` if it does not answer any, or the state is not available.
        """
        last = max((i for i, item in enumerate(items) if item.get("type") == _OUTPUT), default=None)
        match = None if last is None else _ID.fullmatch(items[last]["call_id"])
        later = [] if last is None else items[last + 1 :]
        if match is None or any(item.get("role") != "user" for item in later):
            return None
        stored = await self._store.get(KIND, match[1], run.principal.id)
        record = orjson.loads(stored) if stored is not None else {}
        if (record.get("agent_id"), record.get("session_id")) != (run.agent_id, run.session_id):
            return None
        results = {item["call_id"]: item["output"] for item in items if item.get("type") == _OUTPUT}
        tools.restore(ClientTool(**tool) for tool in record["tools"])
        try:
            state = await paused_state.restore(record["state"], runnable, run)
            compat.allow_turns(state, max_turns)
            if later:
                state.add_input([dict(item) for item in later])  # type: ignore[misc]
        except UserError:
            return None  # the agent has changed, or its tools may end the run
        tools.results.update({own: results.get(name, _NO_RESULT) for name, own in record["calls"].items()})
        for item in state.get_interruptions():
            if item.call_id in tools.results and tools.owns(item.agent, item.name):
                state.approve(item)
        return state
