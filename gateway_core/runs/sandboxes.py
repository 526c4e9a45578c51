"""Opens and deletes the workspaces of agents that work in a sandbox, within the limits of `[runs.sandbox]`.

A workspace stays open until it has been idle for some time, another one needs its place, or the gateway stops. This
module does not know which run may use which workspace; `runs/sandbox_lease.py` does.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from agents.sandbox import Manifest
from agents.sandbox.session import SandboxSession, SandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import NoopSnapshotSpec
from attrs import define, field

from gateway_core.config.settings import SandboxConfig
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import GatewayError, UnavailableError
from gateway_core.sdk import sandbox_clients

T = TypeVar("T")

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

    async def delete(self, client: BaseSandboxClient[Any]) -> None:
        """Stop the session, and delete its workspace."""
        try:
            await super().shutdown()
        finally:
            try:
                await client.delete(self)
            finally:
                await super()._aclose_dependencies()


@define(eq=False)
class Workspace:
    """A workspace that is open, or is being opened."""

    key: tuple[str, ...]
    name: str
    """The name of its client."""
    opening: "asyncio.Task[_KeptSession]" = field(init=False)
    client: BaseSandboxClient[Any] | None = None
    users: int = 0
    """Number of active runs that use it."""
    expires: float = 0.0
    """The time of the event loop from which on it is closed if it is not in use."""

    @property
    def session(self) -> _KeptSession:
        """The session; the workspace must be open."""
        return self.opening.result()


class Sandboxes:
    """The workspaces of one gateway.

    Args:
        config: The settings `[runs.sandbox]`.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._clients: dict[str, BaseSandboxClient[Any]] = {}
        self._open: dict[tuple[str, ...], Workspace] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def client_name(self) -> str:
        """The name of the client in the settings; empty if no sandbox is configured."""
        return self._config.client

    @property
    def count(self) -> int:
        """Number of workspaces, including those that are being opened or deleted."""
        return len(self._open) + len(self._closing)

    def configure(self, config: SandboxConfig) -> None:
        """Use other settings for the workspaces that are opened or released from now on."""
        self._config = config

    async def acquire(self, key: tuple[str, ...], source: Manifest | SandboxSessionState | None) -> Workspace:
        """Return the workspace of a key for one more run, and open it if necessary.

        Args:
            key: The key of the workspace.
            source: The manifest of a new workspace, or the state of a paused run's.

        Raises:
            UnavailableError: All workspaces are in use, or the sandbox cannot be started.
        """
        workspace = self._open.get(key)
        if workspace is None:
            workspace = self._open[key] = Workspace(key, self._config.client)
            workspace.opening = asyncio.create_task(self._opened(workspace, source))
            # No request awaits it if all clients have disconnected.
            workspace.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        workspace.users += 1
        try:
            # A client that disconnects does not interrupt it: another request may wait for the same workspace.
            session = await asyncio.shield(workspace.opening)
            alive = await session.running()
        except BaseException:
            self.release(workspace, keep=True)
            raise
        if alive:
            return workspace
        # Its server has ended it.
        if self._open.get(key) is workspace:
            self._close(workspace)
        return await self.acquire(key, source)

    def find(self, owner: str, session_id: object) -> Workspace | None:
        """Return a principal's open workspace by the id of its session, for one more run."""
        for workspace in self._open.values():
            known = workspace.key[0] == owner and workspace.opening.done()
            if known and workspace.session.state.session_id == session_id:
                workspace.users += 1
                return workspace
        return None

    def release(self, workspace: Workspace, *, keep: bool) -> None:
        """End a run's use of a workspace, and delete the workspace if it is not to be kept."""
        workspace.users -= 1
        if workspace.users > 0 or self._open.get(workspace.key) is not workspace:
            return
        if not keep:
            self._close(workspace)
            return
        loop = asyncio.get_running_loop()
        workspace.expires = loop.time() + self._config.idle
        loop.call_later(self._config.idle, self._expire, workspace)

    async def close(self) -> None:
        """Delete all workspaces."""
        for workspace in list(self._open.values()):
            self._close(workspace)
        while self._closing:
            await asyncio.wait(self._closing)

    def _expire(self, workspace: Workspace) -> None:
        now = asyncio.get_running_loop().time()
        if not workspace.users and now >= workspace.expires and self._open.get(workspace.key) is workspace:
            self._close(workspace)

    async def _opened(self, workspace: Workspace, source: Manifest | SandboxSessionState | None) -> _KeptSession:
        """Create the session of a workspace, and start it."""
        name = workspace.name
        session: Any = None
        try:
            await self._make_room(workspace)
            client = workspace.client = await self._connected(name)
            if isinstance(source, SandboxSessionState):
                session = await _apart(name, partial(client.resume, source))
            else:
                options = sandbox_clients.options_of(name, self._config.options)
                create = partial(client.create, snapshot=NoopSnapshotSpec(), manifest=source, options=options)
                session = await _apart(name, create)
            session.__class__ = _KeptSession
            await session.start()
        except BaseException as error:
            if self._open.get(workspace.key) is workspace:
                del self._open[workspace.key]
            if session is not None:
                await _delete(session, client, name)
            if isinstance(error, Exception) and not isinstance(error, GatewayError):
                raise _unavailable(error) from error
            raise
        opened: _KeptSession = session
        return opened

    async def _make_room(self, new: Workspace) -> None:
        """Wait until a workspace may be opened: the one that is unused for longest is deleted if there are too many.

        Raises:
            UnavailableError: All are in use.
        """
        while self.count > self._config.max_workspaces:
            if not self._closing:
                unused = [each for each in self._open.values() if each is not new and not each.users]
                if not unused:
                    raise UnavailableError(
                        "all sandbox workspaces are in use; retry later", code="too_many_sandboxes", retry_after=1
                    )
                self._close(min(unused, key=lambda each: each.expires))
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)

    async def _connected(self, name: str) -> BaseSandboxClient[Any]:
        if name not in self._clients:
            client = await DaemonThread(lambda: sandbox_clients.create_client(name)).result()
            self._clients.setdefault(name, client)
        return self._clients[name]

    def _close(self, workspace: Workspace) -> None:
        """Delete a workspace in the background."""
        self._open.pop(workspace.key, None)
        task = asyncio.get_running_loop().create_task(self._end(workspace))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _end(self, workspace: Workspace) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                session = await workspace.opening
        except Exception:
            return  # it was not opened
        if workspace.client is not None:
            await _delete(session, workspace.client, workspace.name)


async def _delete(session: _KeptSession, client: BaseSandboxClient[Any], name: str) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            # The terminals belong to this event loop.
            await session.pty_terminate_all()
            await _apart(name, partial(session.delete, client))
    except Exception as error:
        logger.warning("cannot delete a sandbox: %s: %s", type(error).__name__, str(error)[:300])


async def _apart(name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await a call of a client: in a thread with its own event loop if the client blocks."""
    if not sandbox_clients.is_blocking(name):
        return await work()
    return await DaemonThread(lambda: asyncio.run(work())).result()


def _unavailable(error: Exception) -> UnavailableError:
    logger.warning("cannot start a sandbox: %s: %s", type(error).__name__, str(error)[:300])
    return UnavailableError(
        "the agent's sandbox cannot be started",
        code="sandbox_unavailable",
        hint=f"check {sandbox_clients.TABLE}, and that its server can be reached; the gateway's log has the reason",
    )
