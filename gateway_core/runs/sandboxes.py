"""The workspaces of agents that work in a sandbox: one per principal, agent and chat, created when a run needs it.

The SDK creates a sandbox for each run, and deletes it at the run's end. Here, its client returns the chat's workspace
instead, which stays open until it has been idle for `[runs.sandbox] idle`, another one needs its place, or the gateway
stops. The workspace of a request without a chat is deleted after its run. Agents with different manifests have separate
workspaces in a chat.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agents import Agent
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import NoopSnapshotSpec
from attrs import define

from gateway_core.catalog.agent_graph import reachable
from gateway_core.config.settings import SandboxConfig
from gateway_core.errors import GatewayError, UnavailableError
from gateway_core.sdk import compat, sandbox_clients
from gateway_core.types import RunContext

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 30.0
"""Timeout for closing one workspace."""


class _KeptSession(SandboxSession):
    """A session that outlives the runs that use it: their end neither stops nor deletes it."""

    async def start(self) -> None:
        if not await self.running():
            await super().start()

    async def run_pre_stop_hooks(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

    async def _aclose_dependencies(self) -> None:
        pass

    async def close(self, client: BaseSandboxClient[Any]) -> None:
        """Stop the session, and delete its workspace."""
        try:
            await super().run_pre_stop_hooks()
            await super().shutdown()
        finally:
            try:
                await client.delete(self)
            finally:
                await super()._aclose_dependencies()


@define(eq=False)
class _Workspace:
    """An open workspace."""

    key: tuple[str, ...]
    session: _KeptSession
    client: BaseSandboxClient[Any]
    users: int = 0
    """Number of active runs that use it."""
    expires: float = 0.0
    """The time of the event loop from which on it is closed if it is not in use."""


class Sandboxes:
    """The workspaces of one gateway.

    Args:
        config: The settings `[runs.sandbox]`.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._client: BaseSandboxClient[Any] | None = None
        self._open: dict[tuple[str, ...], _Workspace] = {}
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}
        self._creating = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def client_name(self) -> str:
        """The name of the client in the settings."""
        return self._config.client

    @property
    def count(self) -> int:
        """Number of workspaces, including those that are being created or deleted."""
        return len(self._open) + self._creating + len(self._closing)

    def configure(self, config: SandboxConfig) -> None:
        """Use other settings for the workspaces that are created or released from now on."""
        if config.client != self._config.client:
            self._client = None
        self._config = config

    def lease(self, run: RunContext) -> "SandboxLease | None":
        """Return the access of one request's run to its workspaces; `None` if no client is configured."""
        return SandboxLease(self, run) if self._config.client else None

    async def acquire(self, key: tuple[str, ...], manifest: Manifest | None) -> _Workspace:
        """Return the workspace of a key for one more run. Creates it if it does not exist.

        Raises:
            UnavailableError: All workspaces are in use, or the sandbox cannot be started.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                workspace = self._open.get(key)
                if workspace is not None:
                    workspace.users += 1
                    if await workspace.session.running():
                        return workspace
                    self._close_soon(workspace)
                workspace = await self._create(key, manifest)
                workspace.users = 1
                return workspace
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    def find(self, owner: str, session_id: object) -> _Workspace | None:
        """Return a principal's open workspace by the id of its session, for one more run."""
        for workspace in self._open.values():
            if workspace.key[0] == owner and workspace.session.state.session_id == session_id:
                workspace.users += 1
                return workspace
        return None

    async def adopt(self, key: tuple[str, ...], state: SandboxSessionState) -> _Workspace:
        """Open the workspace of a paused run that is no longer open."""
        client = await self._connected()
        return await self._started(key, client, lambda: client.resume(state))

    def release(self, workspace: _Workspace, *, keep: bool) -> None:
        """End a run's use of a workspace, and delete the workspace if it is not to be kept."""
        workspace.users -= 1
        if workspace.users > 0 or self._open.get(workspace.key) is not workspace:
            return
        if not keep:
            self._close_soon(workspace)
            return
        loop = asyncio.get_running_loop()
        workspace.expires = loop.time() + self._config.idle
        loop.call_later(self._config.idle, self._expire, workspace)

    async def close(self) -> None:
        """Delete all workspaces."""
        for workspace in list(self._open.values()):
            self._close_soon(workspace)
        while self._closing:
            await asyncio.wait(self._closing)

    def _expire(self, workspace: _Workspace) -> None:
        now = asyncio.get_running_loop().time()
        if not workspace.users and now >= workspace.expires and self._open.get(workspace.key) is workspace:
            self._close_soon(workspace)

    async def _create(self, key: tuple[str, ...], manifest: Manifest | None) -> _Workspace:
        client = await self._connected()
        options = sandbox_clients.options_of(self._config.client, self._config.options)
        create = partial(client.create, snapshot=NoopSnapshotSpec(), manifest=manifest, options=options)
        return await self._started(key, client, create)

    async def _started(
        self, key: tuple[str, ...], client: BaseSandboxClient[Any], create: Callable[[], Awaitable[SandboxSession]]
    ) -> _Workspace:
        """Create a session, and start it."""
        await self._make_room()
        self._creating += 1
        session: Any = None
        try:
            session = await create()
            session.__class__ = _KeptSession
            await session.start()
        except BaseException as error:
            if session is not None:
                await _delete(session, client)
            if isinstance(error, Exception):
                raise self._unavailable(error) from error
            raise
        finally:
            self._creating -= 1
        workspace = self._open[key] = _Workspace(key, session, client)
        return workspace

    async def _make_room(self) -> None:
        """Wait until a workspace may be created: the one that is unused for longest is deleted if there are too many.

        Raises:
            UnavailableError: All are in use.
        """
        while self.count >= self._config.max_workspaces:
            if not self._closing:
                unused = [workspace for workspace in self._open.values() if not workspace.users]
                if not unused:
                    raise UnavailableError(
                        "all sandbox workspaces are in use; retry later", code="too_many_sandboxes", retry_after=1
                    )
                self._close_soon(min(unused, key=lambda workspace: workspace.expires))
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)

    async def _connected(self) -> BaseSandboxClient[Any]:
        if self._client is None:
            try:
                client = await asyncio.to_thread(sandbox_clients.create_client, self._config.client)
            except Exception as error:
                raise self._unavailable(error) from error
            self._client = self._client or client
        return self._client

    def _unavailable(self, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            return error
        logger.warning("cannot start a sandbox: %s: %s", type(error).__name__, str(error)[:300])
        return UnavailableError(
            "the agent's sandbox cannot be started",
            code="sandbox_unavailable",
            hint=f"check {sandbox_clients.TABLE}, and that its server can be reached; the gateway's log has the reason",
        )

    def _close_soon(self, workspace: _Workspace) -> None:
        self._open.pop(workspace.key, None)
        task = asyncio.get_running_loop().create_task(_delete(workspace.session, workspace.client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _delete(session: _KeptSession, client: BaseSandboxClient[Any]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await session.close(client)
    except Exception as error:
        logger.warning("cannot delete a sandbox: %s: %s", type(error).__name__, str(error)[:300])


class SandboxLease:
    """The use of workspaces by one request's run, including its nested runs.

    Args:
        sandboxes: The workspaces of the gateway.
        run: The run.
    """

    def __init__(self, sandboxes: Sandboxes, run: RunContext) -> None:
        self._sandboxes = sandboxes
        self._run = run
        self._used: dict[tuple[str, ...], _Workspace] = {}
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
            found = await self._sandboxes.adopt(key, state)
            found.users = 1
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
