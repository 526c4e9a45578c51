"""The record of what was decided: every decision and every change of the policy, as a log line and in a file.

It never holds prompts, answers, arguments or keys, and it never makes the event loop wait for a disk.

How the plugin uses it: it is held while the gateway runs (`async with`); `on_decision` calls `decision`; the routes
that change something, and `announce` of the overrides, call `event(…, admin=True)`; who grants an override or changes
anything else awaits `settled` first, so that no change is made that is not on record; `admission` calls `check`.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_core import ConfigError, DecisionMade, GatewayError, UnavailableError
from gateway_plugins.security.audit.file import AuditFile
from gateway_plugins.security.audit.writer import RETRY_SECONDS, AuditWriter
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.settings import AuditSettings

logger = logging.getLogger(__name__)

DECISION = "agent.security.decision"
_LONGEST = 300
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class AuditLog:
    """The audit log of one gateway.

    Args:
        settings: Its settings.
        folder: Where its files are; `None` writes log lines only.
        report: Told, in the event loop, when records can no longer be written.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        settings: AuditSettings,
        folder: Path | None,
        report: Callable[[GatewayError], None],
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self._clock = clock or Clock()
        self._writer: AuditWriter | None = None

    async def __aenter__(self) -> "AuditLog":
        """Open the file.

        Raises:
            ConfigError: It cannot be made or read.
        """
        if self._folder is None:
            return self
        settings = self._settings
        file = AuditFile(self._folder, max_size=settings.max_size, keep=settings.keep, now=self._clock.wall)
        try:
            await asyncio.to_thread(file.open)
        except OSError as error:
            raise ConfigError(
                f"the audit log cannot be opened: {error.strerror or error}",
                source=str(self._folder),
                hint="give the gateway's user the right to write there, or choose another [state] folder",
            ) from error
        self._writer = AuditWriter(file, settings.fsync, self._health, asyncio.get_running_loop(), self._clock)
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is left, and close the file."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.stop)
            self._writer = None

    @property
    def path(self) -> Path | None:
        """The file that is written now."""
        return self._writer.file.path if self._writer else None

    @property
    def failed(self) -> bool:
        """Whether records cannot be written at this moment."""
        return self._writer is not None and self._writer.problem is not None

    def decision(self, made: DecisionMade, *, key: str | None = None, namespace: str | None = None) -> None:
        """Record a decision.

        Args:
            made: The decision.
            key: The id of the key that was used, which is its printable prefix.
            namespace: Where the rules for it were looked up; told from the agent's id unless given.
        """
        decision, agent = made.decision, made.agent_id or made.subject
        fields = {
            "request_id": made.request_id,
            "principal": made.principal.id,
            "key": key,
            "kind": made.kind,
            "subject": made.subject[:_LONGEST],
            "agent": made.agent_id,
            "namespace": namespace or (None if made.kind == "admin" else agent.rpartition("/")[0] or "default"),
            "allowed": decision.allowed,
            "source": decision.source,
            "pattern": decision.pattern,
            "override": decision.override,
            "latency_us": round(made.seconds * 1e6, 1),
        }
        self.event(DECISION, admin=made.kind == "admin", **fields)

    def event(self, event: str, *, admin: bool = False, **fields: Any) -> None:
        """Record that something happened.

        Args:
            event: Its name, such as `agent.security.override.created`.
            admin: Whether an operator changed something, so that it is forced to the disk.
            fields: More about it, as JSON.
        """
        if logger.isEnabledFor(logging.INFO):
            logger.info(event, extra={f"{name}_" if name in _TAKEN else name: value for name, value in fields.items()})
        if self._writer is not None:
            self._writer.put(event, fields, admin=admin)

    async def settled(self) -> None:
        """Return when all that was recorded so far is in the file, and on the disk as far as `fsync` says.

        Raises:
            UnavailableError: It cannot be written.
        """
        if self._writer is not None and await self._writer.settled() is not None:
            raise _unavailable()

    def check(self) -> None:
        """May a run start although it might leave no trace?

        Raises:
            UnavailableError: Records cannot be written, and the settings refuse that.
        """
        if self._settings.on_full == "refuse" and self.failed:
            raise _unavailable()

    def _health(self, problem: OSError | None) -> None:
        if problem is None:
            logger.warning("the audit log is written again")
            return
        rule = "runs are refused" if self._settings.on_full == "refuse" else "runs go on"
        logger.error("the audit log cannot be written: %s; %s, and changes are refused", problem, rule)
        self._report(_unavailable())


def _unavailable() -> UnavailableError:
    return UnavailableError("the audit log cannot be written", code="audit_unavailable", retry_after=RETRY_SECONDS)
