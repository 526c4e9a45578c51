"""Serializes the state of a run that waits for approval or for its client, and restores it.

The author's own context is created again: only the run's state is stored.
"""

from typing import Any

from agents import RunState

from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.types import RunContext


def save(result: Any) -> str:
    """Return the state of an interrupted run."""
    state: str = result.to_state().to_string(context_serializer=lambda _: {})
    return state


async def restore(state: str, runnable: AgentRunnable, run: RunContext) -> "RunState[Any, Any]":
    """Return the state of an interrupted run.

    Raises:
        UserError: The agent has changed, so that the run cannot resume.
    """
    return await RunState.from_string(runnable.agent, state, context_deserializer=lambda _: runnable.context_for(run))
