"""Overrides, limits and the audit log of one gateway, held together: what one does, the others are told.

It decides nothing by rules. Nothing is opened, and no file made, where everybody may do everything.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gateway_core import DecisionMade, Gateway, InvalidRequestError, Principal, RunContext, Usage
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.overrides.manager import OverrideEvent, OverrideManager
from gateway_plugins.security.settings import Settings

if TYPE_CHECKING:
    from gateway_plugins.security.limits.admission import Limits


class Components:
    """The parts of `security` that hold something while the gateway runs.

    Args:
        gateway: Whose state folder to use, and where to report.
        settings: Theirs.
    """

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self._gateway = gateway
        self._settings = settings
        # Known, and not made before something is opened.
        self._folder = gateway.state_folder(create=False)
        self.audit = AuditLog(settings.audit, self._folder, gateway.report)
        self.overrides = OverrideManager(settings.overrides, self._folder, self._announce)
        self._limits: Limits | None = None
        self._held: AsyncExitStack | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Take up what was kept, if that has not been done.

        Raises:
            ConfigError: A file cannot be made or read, or the storage of limits cannot be used.
        """
        async with self._opening:
            if self._held is not None:
                return
            # Here and not above: it takes time to import, and commands need none of it.
            from gateway_plugins.security.limits.admission import Limits

            self._gateway.state_folder()
            async with AsyncExitStack() as held:
                await held.enter_async_context(self.audit)
                await held.enter_async_context(self.overrides)
                limits = Limits(self._settings.limits, self._folder, self._gateway.report)
                self._limits = await held.enter_async_context(limits)
                self._held = held.pop_all()

    async def close(self) -> None:
        """Write what is left, and close the files."""
        if self._held is not None:
            await self._held.aclose()
            self._held = self._limits = None

    @asynccontextmanager
    async def admission(self, run: RunContext) -> AsyncIterator[None]:
        """A run's place.

        Raises:
            RateLimitError: There is no room.
            UnavailableError: It would leave no trace, and the settings refuse that.
        """
        self.audit.check()
        if self._limits is None:
            yield
            return
        async with self._limits.admission(_who(run.principal), run.agent_id):
            yield

    def spent(self, run: RunContext, usage: Usage) -> None:
        """Count what a run has used."""
        if self._limits is not None:
            self._limits.spent(_who(run.principal), usage)

    async def failed_authentication(self, address: str) -> None:
        """Count a bad credential.

        Raises:
            RateLimitError: There were too many from there.
        """
        if self._limits is not None:
            await self._limits.failed_authentication(address)

    def decided(self, made: DecisionMade) -> None:
        """Put a decision on record, where one can be a refusal."""
        if self._held is None:
            return
        self.audit.decision(made, key=made.principal.key)

    async def ready_for_changes(self) -> None:
        """Return when it is on record who asks for a change.

        Raises:
            InvalidRequestError: There is nothing to change, as nothing is refused to anybody.
            UnavailableError: It cannot be recorded.
        """
        if self._held is None:
            raise InvalidRequestError(
                "there are no keys and no rules, so nothing is refused",
                hint="make a key with `agent-gateway keys create NAME`",
                code="nothing_to_override",
                status=409,
            )
        await self.audit.settled()

    def running(self) -> dict[str, int]:
        """How many runs each key and agent has, where there are limits."""
        return self._limits.running() if self._limits is not None else {}

    def _announce(self, event: OverrideEvent) -> None:
        override = event.override
        self.audit.event(
            event.name,
            admin=True,
            override=override.id,
            kind=override.kind,
            pattern=override.pattern,
            principal=override.principal,
            by=event.by,
            reason=override.reason,
            expires=override.expires,
        )


def _who(principal: Principal) -> str:
    return principal.key or principal.id
