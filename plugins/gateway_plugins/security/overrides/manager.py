"""What is allowed for a time: granted, kept over a restart, and over when its time is over.

It decides nothing but whether an override is in force; who may grant is for `override_routes.py`.

The plugin holds one store for as long as the gateway runs (`async with`), hands it to the rules as their
`Overrides`, and gives an `announce` that logs, audits and counts.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

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
MOST = 1000
"""So many at a time; nobody who reads them grants more, and a script gone wild stops there."""

# A timer does not hear of a machine's sleep, so it looks at the clock at least this often.
_LONGEST_SLEEP = 60.0


@frozen
class OverrideEvent:
    """Something happened to an override."""

    name: Literal[
        "agent.security.override.created", "agent.security.override.expired", "agent.security.override.revoked"
    ]
    override: Override
    by: str | None
    """The principal that did it; `None` when its time was over."""


@frozen
class _Held:
    override: Override
    deadline: float
    """By the steady clock."""
    means: Matcher
    """Its pattern, as rules read it."""


class OverrideManager:
    """The overrides of one gateway; implements `questions.Overrides`.

    Args:
        settings: How long overrides may last.
        folder: Where to keep them; `None` keeps them in memory only.
        announce: Hears of each creation, expiry and revocation, in the event loop.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        settings: OverrideSettings,
        folder: Path | None,
        announce: Callable[[OverrideEvent], None],
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._file = OverrideFile(folder / FILE_NAME) if folder else None
        self._announce = announce
        self._clock = clock or Clock()
        self._held: dict[str, _Held] = {}
        # The same, by kind and whom they are for: each request asks, and few are for whoever asks.
        self._for: dict[tuple[str, str | None], list[_Held]] = {}
        # No longer in force, and still in the file.
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "OverrideManager":
        """Take up what was in force when the last process ended.

        Raises:
            ConfigError: The file cannot be made or read.
        """
        if self._file is not None:
            for override in await asyncio.to_thread(self._file.open):
                try:
                    check_pattern(override.pattern, override.kind)
                except InvalidRequestError as error:
                    # Granted by an older version, or not by the gateway at all.
                    logger.warning("the override %s is left out: %s", override.id, error)
                    self._stale.add(override.id)
                else:
                    self._hold(override, self._left_at_rest(override))
        self._timer = asyncio.create_task(self._expire())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the timer; what is in force stays so in the file."""
        if self._timer is not None:
            self._timer.cancel()
            with suppress(asyncio.CancelledError):
                await self._timer
        await self._try_to_clean()
        if self._file is not None:
            async with self._writing:
                await asyncio.to_thread(self._file.close)

    def deciding(self, question: AccessQuery) -> Override | None:
        """An override in force that allows it, if there is one."""
        if not self._held:
            return None
        now = self._clock.steady()
        for whom in (question.principal, question.key):
            for held in self._for.get((question.kind, whom), ()):
                if now < held.deadline and held.means.first(question.names, question.source) is not None:
                    return held.override
        return None

    def active(self) -> list[tuple[Override, float]]:
        """What is in force, oldest first, each with the seconds that it has left."""
        now = self._clock.steady()
        return [(held.override, held.deadline - now) for held in self._held.values() if now < held.deadline]

    async def grant(self, grant: Grant, granted_by: str) -> Override:
        """Allow something for a time. It is in the file before it is in force.

        Args:
            grant: What, for whom, how long and why.
            granted_by: The principal that grants it.

        Raises:
            InvalidRequestError: It asks for too much (status 422).
            UnavailableError: It cannot be kept.
        """
        ttl = self.settings.default_ttl if grant.ttl is None else grant.ttl
        if ttl > self.settings.max_ttl:
            raise InvalidRequestError(
                f"an override lasts {self.settings.max_ttl:g} seconds at most",
                param="ttl_seconds",
                code="invalid_override",
                status=422,
            )
        # A client that leaves meanwhile does not part the file from what is in force.
        return await asyncio.shield(asyncio.create_task(self._grant(grant, granted_by, ttl)))

    async def _grant(self, grant: Grant, granted_by: str, ttl: float) -> Override:
        async with self._writing:
            if len(self._held) >= MOST:
                raise InvalidRequestError(
                    f"{MOST} overrides are in force already",
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
            # Its time runs from here, and not from when the disk was done.
            deadline = self._clock.steady() + ttl
            if self._file is not None:
                await asyncio.to_thread(self._file.add, override)
            self._hold(override, deadline - self._clock.steady())
        self._tell(OverrideEvent("agent.security.override.created", override, granted_by))
        return override

    async def revoke(self, override_id: str, revoked_by: str) -> Override | None:
        """Take back an override, at once. Returns it; `None` when none of this id is in force.

        Raises:
            UnavailableError: It is over in this process, but the file still has it, and a restart would bring it back.
        """
        held = self._held.get(override_id)
        if held is None or held.deadline <= self._clock.steady():
            return None
        self._drop(held)
        self._tell(OverrideEvent("agent.security.override.revoked", held.override, revoked_by))
        self._stale.add(override_id)
        await asyncio.shield(asyncio.create_task(self._clean()))
        return held.override

    def _hold(self, override: Override, left: float) -> None:
        held = _Held(override, self._clock.steady() + left, Matcher([override.pattern], f"{override.kind}s"))
        self._held[override.id] = held
        self._for.setdefault((override.kind, override.principal), []).append(held)
        self._changed.set()

    def _drop(self, held: _Held) -> None:
        override = held.override
        del self._held[override.id]
        others = self._for[override.kind, override.principal]
        others.remove(held)
        if not others:
            del self._for[override.kind, override.principal]

    def _left_at_rest(self, override: Override) -> float:
        # A clock that was set back in between must not lengthen it: it never has more than it was granted.
        granted = min(override.expires - override.created, self.settings.max_ttl)
        return min(override.expires - self._clock.wall(), granted)

    async def _expire(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock.steady()
            over = [held for held in self._held.values() if held.deadline <= now]
            for held in over:
                self._drop(held)
                self._stale.add(held.override.id)
                self._tell(OverrideEvent("agent.security.override.expired", held.override, None))
            await asyncio.shield(asyncio.create_task(self._try_to_clean()))
            nearest = min((held.deadline for held in self._held.values()), default=now + _LONGEST_SLEEP)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(nearest - self._clock.steady(), 0.0), _LONGEST_SLEEP)):
                    await self._changed.wait()

    async def _try_to_clean(self) -> None:
        try:
            await self._clean()
        except GatewayError as error:
            # A restart reads from their time that they are over; what was revoked is tried again.
            logger.warning("overrides that are over could not be removed from the file: %s", error)

    async def _clean(self) -> None:
        """Take out of the file what is no longer in force.

        Raises:
            UnavailableError: It could not be written.
        """
        async with self._writing:
            if self._stale and self._file is not None:
                stale = list(self._stale)
                await asyncio.to_thread(self._file.remove, stale)
                self._stale.difference_update(stale)
            elif self._file is None:
                self._stale.clear()

    def _tell(self, event: OverrideEvent) -> None:
        try:
            self._announce(event)
        except Exception:
            logger.exception("%s of %s could not be announced", event.name, event.override.id)
