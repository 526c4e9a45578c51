"""Other served agents that a run comes to, by a handoff, as a tool or from a workflow: may whoever asks use those, too?

An agent object is known by its identity; one that the catalog does not serve is part of the agent that reached it, and
nobody is asked. The decision is the plugins'.
"""

import time
import weakref
from collections.abc import Callable
from typing import Any

from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.errors import GatewayError, PermissionDeniedError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.runs.run_scope import RunScope
from gateway_core.types import AgentEntry, Catalog, DecisionMade, RunContext


class CrossAgentAuthorization:
    """The served agents of one gateway, as runs come to them.

    Args:
        hooks: Asked whether a served agent may be used.
        catalog: Tells the agents that are served at the moment.
        announce: Tells every plugin of a run's error.
    """

    def __init__(
        self, hooks: Hooks, catalog: Callable[[], Catalog], announce: Callable[[GatewayError, RunContext], None]
    ) -> None:
        self._hooks = hooks
        self._catalog = catalog
        self._announce = announce
        # Of this catalog, which keeps the objects alive that the numbers mean. Held weakly: what it serves is unloaded
        # when nothing else holds it.
        self._indexed: Callable[[], Catalog | None] = lambda: None
        self._ids: dict[int, list[str]] = {}

    async def permit(self, scope: RunScope, agent: Any) -> None:
        """Ask about an agent that is about to run, if it is served by itself under another name than the run's.

        Raises:
            PermissionDeniedError: Whoever asks may not use it. That ends the run, whatever the agent's code does.
        """
        run, entries = scope.run, self._entries(agent)
        if not entries or any(entry.id == run.agent_id for entry in entries):
            return
        for entry in entries:
            if await self._allowed(run, entry):
                return
        error = PermissionDeniedError(
            f"the agent '{run.agent_id}' uses another one that '{run.principal.id}' may not use",
            source=f"agent {entries[0].id}",
        )
        self._announce(error, run)
        scope.fatal = error
        raise error

    def served_as(self, run: RunContext, agent: Any) -> str:
        """The id by which policies know an agent in a run: its own where it is served, else the run's."""
        ids = self._ids_of(agent)
        return run.agent_id if not ids or run.agent_id in ids else ids[0]

    async def _allowed(self, run: RunContext, entry: AgentEntry) -> bool:
        began = time.perf_counter()
        decision = await self._hooks.authorize(run.principal, entry)
        seconds = time.perf_counter() - began
        self._hooks.on_decision(DecisionMade(run.request_id, run.principal, "agent", entry.id, decision, seconds))
        return decision.allowed

    def _entries(self, agent: Any) -> list[AgentEntry]:
        ids = self._ids_of(agent)
        return [self._catalog().agents[agent_id].entry for agent_id in ids]

    def _ids_of(self, agent: Any) -> list[str]:
        """What it is served as; one object may be several models."""
        catalog = self._catalog()
        if self._indexed() is not catalog:
            self._indexed = weakref.ref(catalog)
            self._ids = {}
            for served in catalog.agents.values():
                if isinstance(served.runnable, AgentRunnable):
                    self._ids.setdefault(id(served.runnable.agent), []).append(served.id)
        return self._ids.get(id(agent), [])
