"""Re-authorizes the caller when a run reaches another served agent: by a handoff, as a tool or from a workflow.

Agent objects are compared by identity. An agent object that the catalog does not serve is part of the agent that
reached it and is not authorized separately. The plugins make the decision.
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
    """Authorizes runs of one gateway to use other served agents.

    Args:
        hooks: The hook `authorize` decides whether the caller may use a served agent.
        catalog: Returns the current catalog.
        announce: Reports a run's error to every plugin.
    """

    def __init__(
        self, hooks: Hooks, catalog: Callable[[], Catalog], announce: Callable[[GatewayError, RunContext], None]
    ) -> None:
        self._hooks = hooks
        self._catalog = catalog
        self._announce = announce
        # The catalog of `_ids`: it keeps the agents alive, so that their `id()` stays valid. A weak reference, so that
        # its agents can be unloaded.
        self._indexed: Callable[[], Catalog | None] = lambda: None
        self._ids: dict[int, list[str]] = {}

    async def permit(self, scope: RunScope, agent: Any) -> None:
        """Authorize an agent that is about to run, if it is served separately under another id than the run's.

        Raises:
            PermissionDeniedError: The caller may not use the agent. This ends the run, even if the agent's code catches
                the error.
        """
        run, entries = scope.run, self._entries(agent)
        if not entries or any(entry.id == run.agent_id for entry in entries):
            return
        for entry in entries:
            if await self._allowed(run, entry):
                return
        error = PermissionDeniedError(
            f"the agent '{run.agent_id}' uses another agent that '{run.principal.id}' may not use",
            source=f"agent {entries[0].id}",
        )
        self._announce(error, run)
        scope.fatal = error
        raise error

    def served_as(self, run: RunContext, agent: Any) -> str:
        """Return the id of an agent for policies: its own if it is served, otherwise that of the run's agent."""
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
        """Return the ids under which an agent object is served; there may be several."""
        catalog = self._catalog()
        if self._indexed() is not catalog:
            self._indexed = weakref.ref(catalog)
            self._ids = {}
            for served in catalog.agents.values():
                if isinstance(served.runnable, AgentRunnable):
                    self._ids.setdefault(id(served.runnable.agent), []).append(served.id)
        return self._ids.get(id(agent), [])
