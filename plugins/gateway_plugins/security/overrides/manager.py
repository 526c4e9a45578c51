"""Grants, revokes and expires overrides, which survive a restart.

It does not authorize the granting principal; `overrides/routes.py` does.

The plugin keeps one manager open while the gateway runs (`async with`), passes it to the policy evaluator as its
`Overrides`, and provides an `announce` that writes to the audit log.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from gateway_core import GatewayError, InvalidRequestError
from gateway_plugins.security.access_query import AccessQuery, Override
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.overrides.grant_request import Grant, check_pattern
from gateway_plugins.security.overrides.storage import OverrideFile
from gateway_plugins.security.policy.compiler import Matcher
from gateway_plugins.security.settings import OverrideSettings

logger = logging.getLogger(__name__)

FILE_NAME = "overrides.db"
MAX_OVERRIDES = 1000
"""Maximum number of active overrides. A list that an operator reads is shorter; the limit stops a runaway script."""

# Timers stop while the machine is suspended, so the expiry task checks the clock at least this often (seconds).
_LONGEST_SLEEP = 60.0

_FOLLOW_SECONDS = 0.5
"""Interval of the checks for changes that other processes make in the file."""

Announce = Callable[[str, Override, str | None], None]
"""Receives the name of an event, such as `agent.security.override.created`, the override, and the id of the principal
that granted or revoked it; `None` for an expiry, and for a change that another process made in the file."""


@frozen
class _Active:
    override: Override
    deadline: float
    """Seconds on the steady clock."""
    matcher: Matcher
    """The compiled pattern."""


class OverrideManager:
    """The overrides of one gateway; implements `access_query.Overrides`.

    Args:
        settings: Lifetimes of overrides, and the principals that may grant them.
        folder: The folder of the database; `None` keeps the overrides in memory only.
        announce: Called in the event loop with each creation, expiry and revocation.
        clock: The source of time.
    """

    def __init__(
        self,
        settings: OverrideSettings,
        folder: Path | None,
        announce: Announce,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._file = OverrideFile(folder / FILE_NAME) if folder else None
        self._announce = announce
        self._clock = clock or Clock()
        self._active: dict[str, _Active] = {}
        # The same entries, indexed by kind and principal: every request looks up the few overrides of its caller.
        self._by_principal: dict[tuple[str, str | None], list[_Active]] = {}
        # Ids of overrides that are no longer active but still in the file.
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "OverrideManager":
        """Restore the overrides of the previous process.

        Raises:
            ConfigError: The file cannot be created or read.
        """
        if self._file is not None:
            self._restore(await self._file.open())
            self._tasks.append(asyncio.create_task(self._follow(self._file)))
        self._tasks.append(asyncio.create_task(self._expire()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the tasks. Active overrides stay in the file."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._try_to_delete_stale()
        if self._file is not None:
            async with self._writing:
                await self._file.close()

    def deciding(self, query: AccessQuery) -> Override | None:
        """Return an active override that allows the query, or `None`."""
        if not self._active:
            return None
        now = self._clock.steady()
        for principal in (query.principal, query.key):
            for entry in self._by_principal.get((query.kind, principal), ()):
                if now < entry.deadline and entry.matcher.first(query.names, query.source) is not None:
                    return entry.override
        return None

    def active(self) -> list[tuple[Override, float]]:
        """Return the active overrides, oldest first, each with its remaining seconds."""
        now = self._clock.steady()
        return [(entry.override, entry.deadline - now) for entry in self._active.values() if now < entry.deadline]

    async def grant(self, grant: Grant, granted_by: str) -> Override:
        """Create an override. It becomes active after it is written to the file.

        Args:
            grant: The validated request.
            granted_by: The id of the granting principal.

        Raises:
            InvalidRequestError: The lifetime is too long, or too many overrides are active (status 422).
            UnavailableError: The file cannot be written.
        """
        ttl = self.settings.default_ttl if grant.ttl is None else grant.ttl
        if ttl > self.settings.max_ttl:
            raise InvalidRequestError(
                f"the maximum lifetime of an override is {self.settings.max_ttl:g} seconds",
                param="ttl_seconds",
                code="invalid_override",
                status=422,
            )
        # Shielded: a client that disconnects must not make the file and the active overrides diverge.
        return await asyncio.shield(asyncio.create_task(self._grant(grant, granted_by, ttl)))

    async def _grant(self, grant: Grant, granted_by: str, ttl: float) -> Override:
        async with self._writing:
            if len(self._active) >= MAX_OVERRIDES:
                raise InvalidRequestError(
                    f"{MAX_OVERRIDES} overrides are already active",
                    hint="revoke those that are no longer needed",
                    code="invalid_override",
                    status=422,
                )
            now = self._clock.wall()
            override = Override(
                id=f"ovr_{secrets.token_hex(8)}",
                kind=grant.kind,
                pattern=grant.pattern,
                principal=grant.principal,
                reason=grant.reason,
                granted_by=granted_by,
                created=now,
                expires=now + ttl,
            )
            # The lifetime starts now, not after the disk write.
            deadline = self._clock.steady() + ttl
            if self._file is not None:
                await self._file.add(override)
            self._add(override, deadline - self._clock.steady())
        self._emit("agent.security.override.created", override, granted_by)
        return override

    async def revoke(self, override_id: str, revoked_by: str) -> Override | None:
        """Revoke an override, effective immediately. Returns it; `None` if no active override has this id.

        Raises:
            UnavailableError: The override is revoked in this process but still in the file; a restart would restore it.
        """
        entry = self._active.get(override_id)
        if entry is None or entry.deadline <= self._clock.steady():
            return None
        self._remove(entry)
        self._emit("agent.security.override.revoked", entry.override, revoked_by)
        self._stale.add(override_id)
        await asyncio.shield(asyncio.create_task(self._delete_stale()))
        return entry.override

    def _restore(self, stored: Iterable[Override]) -> list[Override]:
        """Add the overrides of the file that are not active, and return them."""
        added = []
        for override in stored:
            if override.id in self._active or override.id in self._stale:
                continue
            try:
                check_pattern(override.pattern, override.kind)
            except InvalidRequestError as error:
                # Granted by an older version, or written by another program.
                logger.warning("ignoring the stored override %s: %s", override.id, error)
                self._stale.add(override.id)
            else:
                self._add(override, self._remaining_after_restart(override))
                added.append(override)
        return added

    async def _follow(self, file: OverrideFile) -> None:
        """Apply the changes that other processes make in the file."""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                async with self._writing:
                    if (stored := await file.changes()) is not None:
                        self._apply(stored)
            except (sqlite3.Error, OSError) as error:
                # Such as a locked file.
                logger.warning("could not read the database of overrides: %s", error)

    def _apply(self, stored: list[Override]) -> None:
        ids = {override.id for override in stored}
        for entry in [*self._active.values()]:
            if entry.override.id not in ids:
                self._remove(entry)
                # The other process deletes an override when it expires, too.
                ended = "expired" if entry.override.expires <= self._clock.wall() else "revoked"
                self._emit(f"agent.security.override.{ended}", entry.override, None)
        for override in self._restore(stored):
            self._emit("agent.security.override.created", override, None)

    def _add(self, override: Override, left: float) -> None:
        entry = _Active(override, self._clock.steady() + left, Matcher([override.pattern], f"{override.kind}s"))
        self._active[override.id] = entry
        self._by_principal.setdefault((override.kind, override.principal), []).append(entry)
        self._changed.set()

    def _remove(self, entry: _Active) -> None:
        override = entry.override
        del self._active[override.id]
        entries = self._by_principal[override.kind, override.principal]
        entries.remove(entry)
        if not entries:
            del self._by_principal[override.kind, override.principal]

    def _remaining_after_restart(self, override: Override) -> float:
        # A wall clock that was set back must not extend an override beyond its granted lifetime.
        granted = min(override.expires - override.created, self.settings.max_ttl)
        return min(override.expires - self._clock.wall(), granted)

    async def _expire(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.steady()
            expired = [entry for entry in self._active.values() if entry.deadline <= now]
            for entry in expired:
                self._remove(entry)
                self._stale.add(entry.override.id)
                self._emit("agent.security.override.expired", entry.override, None)
            await asyncio.shield(asyncio.create_task(self._try_to_delete_stale()))
            nearest = min((entry.deadline for entry in self._active.values()), default=now + _LONGEST_SLEEP)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(nearest - self._clock.steady(), 0.0), _LONGEST_SLEEP)):
                    await self._changed.wait()

    async def _try_to_delete_stale(self) -> None:
        try:
            await self._delete_stale()
        except GatewayError as error:
            # Expired overrides expire again after a restart; the removal of revoked ones is retried.
            logger.warning("could not delete expired and revoked overrides from the file: %s", error)

    async def _delete_stale(self) -> None:
        """Delete the overrides from the file that are no longer active.

        Raises:
            UnavailableError: The file could not be written.
        """
        async with self._writing:
            stale = list(self._stale)
            if stale and self._file is not None:
                await self._file.remove(stale)
            self._stale.difference_update(stale)

    def _emit(self, event: str, override: Override, by: str | None) -> None:
        try:
            self._announce(event, override, by)
        except Exception:
            logger.exception("could not announce %s of the override %s", event, override.id)
