"""Creates, opens and closes the overrides, limits and audit log of one gateway, and connects them.

It does not evaluate rules. It opens and creates no files while the settings restrict nothing.
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
    """The stateful parts of `security`.

    Args:
        gateway: Provides the state folder and receives error reports.
        settings: Settings of the plugin.
    """

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self._gateway = gateway
        self._settings = settings
        # The path is known; the folder is not created before `open`.
        self._folder = gateway.state_folder(create=False)
        self.audit = AuditLog(settings.audit, self._folder, gateway.report)
        self.overrides = OverrideManager(settings.overrides, self._folder, self._announce)
        self._limits: Limits | None = None
        self._held: AsyncExitStack | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the files and restore their state, unless they are open.

        Raises:
            ConfigError: A file cannot be created or read, or the storage of limits cannot be used.
        """
        async with self._opening:
            if self._held is not None:
                return
            # Imported here because the import is slow, and commands do not need it.
            from gateway_plugins.security.limits.admission import Limits

            self._gateway.state_folder()
            async with AsyncExitStack() as held:
                await held.enter_async_context(self.audit)
                await held.enter_async_context(self.overrides)
                limits = Limits(self._settings.limits, self._folder, self._gateway.report)
                self._limits = await held.enter_async_context(limits)
                self._held = held.pop_all()

    async def close(self) -> None:
        """Write pending data and close the files."""
        if self._held is not None:
            await self._held.aclose()
            self._held = self._limits = None

    @asynccontextmanager
    async def admission(self, run: RunContext) -> AsyncIterator[None]:
        """Hold a run slot.

        Raises:
            RateLimitError: A limit is exceeded.
            UnavailableError: The audit log cannot be written, and `on_full` is "refuse".
        """
        self.audit.check()
        if self._limits is None:
            yield
            return
        async with self._limits.admission(_caller(run.principal), run.agent_id):
            yield

    def add_usage(self, run: RunContext, usage: Usage) -> None:
        """Count the tokens that a run used."""
        if self._limits is not None:
            self._limits.add_usage(_caller(run.principal), usage)

    async def failed_authentication(self, address: str) -> None:
        """Count a failed authentication.

        Raises:
            RateLimitError: The address exceeded its limit.
        """
        if self._limits is not None:
            await self._limits.failed_authentication(address)

    def record_decision(self, made: DecisionMade) -> None:
        """Write a decision to the audit log, if the settings can refuse any request."""
        if self._held is None:
            return
        self.audit.decision(made, key=made.principal.key)

    async def ready_for_changes(self) -> None:
        """Wait until the decisions made so far, including that on the current request, are in the audit log.

        Raises:
            InvalidRequestError: No keys, rules or limits are configured, so there is nothing to override (status 409).
            UnavailableError: The audit log cannot be written.
        """
        if self._held is None:
            raise InvalidRequestError(
                "no keys, rules or limits are configured, so there is nothing to override",
                hint="create a key with `agent-gateway keys create NAME`",
                code="nothing_to_override",
                status=409,
            )
        await self.audit.settled()

    def running(self) -> dict[str, int]:
        """Number of active runs of each limited key and agent."""
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


def _caller(principal: Principal) -> str:
    return principal.key or principal.id
