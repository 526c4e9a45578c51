"""Creates, opens and closes the overrides, limits and audit log of one gateway, and connects them.

It does not evaluate rules. It opens and creates no files while the settings restrict nothing.
"""

import asyncio
from contextlib import AsyncExitStack

from gateway_core import Gateway, InvalidRequestError
from gateway_plugins.security.access_query import Override
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.limits.admission import Limits
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import Settings


class Components:
    """The stateful parts of `security`.

    Args:
        gateway: Provides the state folder and receives error reports.
        settings: Settings of the plugin.
    """

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self._gateway = gateway
        # The path is known; the folder is not created before `open`.
        self._folder = gateway.state_folder(create=False)
        self.audit = AuditLog(settings.audit, self._folder, gateway.report)
        self.overrides = OverrideManager(settings.overrides, self._folder, self._announce)
        self.limits = Limits(settings.limits, self._folder, gateway.report)
        self._held: AsyncExitStack | None = None
        self._opening = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the files are open."""
        return self._held is not None

    async def open(self) -> None:
        """Open the files and restore their state, unless they are open.

        Raises:
            ConfigError: A file cannot be created or read, or the storage of limits cannot be used.
        """
        async with self._opening:
            if self._held is not None:
                return
            self._gateway.state_folder()
            async with AsyncExitStack() as held:
                await held.enter_async_context(self.audit)
                await held.enter_async_context(self.overrides)
                await held.enter_async_context(self.limits)
                self._held = held.pop_all()

    async def close(self) -> None:
        """Write pending data and close the files."""
        if self._held is not None:
            await self._held.aclose()
            self._held = None

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

    def _announce(self, event: str, override: Override, by: str | None) -> None:
        shown = {"kind": override.kind, "pattern": override.pattern, "principal": override.principal}
        self.audit.event(
            event, admin=True, override=override.id, **shown, by=by, reason=override.reason, expires=override.expires
        )
