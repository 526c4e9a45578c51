"""Gives a run the workspaces of its sandboxes: one per principal, agent and chat, opened when the run needs it.

The SDK creates a sandbox for each run, and deletes it at the run's end. The client that it receives here returns the
chat's workspace instead, which is kept. The workspace of a request without a chat is deleted after its run. Agents with
different manifests have separate workspaces in a chat.
"""

import hashlib
from typing import Any

from agents import Agent
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import NoopSnapshotSpec

from gateway_core.catalog.agent_graph import reachable
from gateway_core.runs.sandboxes import Sandboxes, Workspace
from gateway_core.sdk import compat, sandbox_clients
from gateway_core.types import RunContext


class SandboxLease:
    """The use of workspaces by one request's run, including its nested runs.

    Args:
        sandboxes: The workspaces of the gateway.
        run: The run.
    """

    def __init__(self, sandboxes: Sandboxes, run: RunContext) -> None:
        self._sandboxes = sandboxes
        self._run = run
        self._used: dict[tuple[str, ...], Workspace] = {}
        self._config = SandboxRunConfig(client=_LeaseClient(self, sandboxes.client_name), snapshot=NoopSnapshotSpec())
        self.paused = False
        """Whether the run waits for an approval, after which it continues in the same workspaces."""

    def config_for(self, agent: Agent[Any]) -> SandboxRunConfig | None:
        """Return the SDK's configuration of a run that starts with an agent; `None` if it needs no sandbox."""
        sandboxed = [each for each in reachable(agent) if isinstance(each, SandboxAgent)]
        for each in sandboxed:
            compat.share_sandbox_agent(each)
        return self._config if sandboxed else None

    async def open(self, manifest: Manifest | None) -> SandboxSession:
        """Return the session of the chat's workspace for agents with this manifest."""
        key = self._key(_digest(manifest))
        if key not in self._used:
            workspace = await self._sandboxes.acquire(key, manifest)
            if self._used.setdefault(key, workspace) is workspace:
                return workspace.session
            workspace.users -= 1  # a nested run has opened it in the meantime
        return self._used[key].session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Return the session with which a paused run continues."""
        owner, key = self._run.principal.id, self._key(str(state.session_id))
        for workspace in self._used.values():
            if workspace.session.state.session_id == state.session_id:
                return workspace.session
        found = self._sandboxes.find(owner, state.session_id)
        if found is None:
            found = await self._sandboxes.acquire(key, state)
        self._used[found.key] = found
        return found.session

    def release(self) -> None:
        """End the run's use of its workspaces."""
        used, self._used = self._used, {}
        for workspace in used.values():
            self._sandboxes.release(workspace, keep=self.paused or self._run.session_id is not None)

    def _key(self, part: str) -> tuple[str, ...]:
        run = self._run
        chat = ("chat", run.session_id) if run.session_id is not None else ("request", run.request_id)
        return (run.principal.id, run.agent_id, *chat, part)


class _LeaseClient(BaseSandboxClient[Any]):
    """Gives the SDK the sessions of a lease in place of new ones.

    Args:
        lease: The lease.
        name: The name of the client of the sessions.
    """

    supports_default_options = True

    def __init__(self, lease: SandboxLease, name: str) -> None:
        self._lease = lease
        self._name = name
        self.backend_id = sandbox_clients.backend_of(name)

    async def create(
        self, *, snapshot: Any = None, manifest: Manifest | None = None, options: Any = None
    ) -> SandboxSession:
        return await self._lease.open(manifest)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        return await self._lease.resume(state)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        state: SandboxSessionState = sandbox_clients.state_of(self._name, payload)
        return state


def _digest(manifest: Manifest | None) -> str:
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest() if manifest is not None else ""
