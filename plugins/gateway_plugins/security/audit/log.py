"""Records every decision and every policy change as a log line and in the audit log file.

It never contains prompts, outputs, arguments or keys, and never blocks the event loop on disk access.

The plugin keeps it open while the gateway runs (`async with`). The hook `on_decision` calls `decision`; the overrides'
`announce` calls `event(…, admin=True)`; routes that change state await `settled`, so that no unrecorded change takes
effect; the hook `admission` calls `check`.
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
_MAX_LENGTH = 300
_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class AuditLog:
    """The audit log of one gateway.

    Args:
        settings: The settings of the log.
        folder: The folder of the files; `None` writes log lines only.
        report: Called in the event loop with an error when writing starts to fail.
        clock: The source of time.
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
        """Open the file and start the writer thread.

        Raises:
            ConfigError: The file cannot be created or read.
        """
        if self._folder is None:
            return self
        settings = self._settings
        file = AuditFile(self._folder, max_size=settings.max_size, keep=settings.keep, now=self._clock.wall)
        try:
            await asyncio.to_thread(file.open)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"the audit log cannot be opened: {getattr(error, 'strerror', None) or error}",
                source=str(self._folder),
                hint="give the gateway's user write permission, or choose another [state] folder",
            ) from error
        self._writer = AuditWriter(
            file, settings.fsync, self._on_health_change, asyncio.get_running_loop(), self._clock
        )
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write pending records and close the file."""
        if self._writer is not None:
            await self._writer.stop()
            self._writer = None

    @property
    def path(self) -> Path | None:
        """The active file; `None` without a folder."""
        return self._writer.file.path if self._writer else None

    @property
    def failed(self) -> bool:
        """Whether the last write failed."""
        return self._writer is not None and self._writer.problem is not None

    def decision(self, made: DecisionMade) -> None:
        """Record a decision."""
        decision, agent = made.decision, made.agent_id or made.subject
        fields = {
            "request_id": made.request_id,
            "principal": made.principal.id,
            "key": made.principal.key,
            "kind": made.kind,
            "subject": made.subject[:_MAX_LENGTH],
            "agent": made.agent_id,
            "namespace": None if made.kind == "admin" else agent.rpartition("/")[0] or "default",
            "allowed": decision.allowed,
            "source": decision.source,
            "pattern": decision.pattern,
            "override": decision.override,
            "latency_us": round(made.seconds * 1e6, 1),
        }
        self.event(DECISION, admin=made.kind == "admin", **fields)

    def event(self, event: str, *, admin: bool = False, **fields: Any) -> None:
        """Record an event.

        Args:
            event: The name of the event, such as `agent.security.override.created`.
            admin: Whether an admin made a change; with `fsync = "admin"` only these records are flushed to the disk.
            fields: JSON-serializable fields of the record.
        """
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                event, extra={f"{name}_" if name in _RESERVED else name: value for name, value in fields.items()}
            )
        if self._writer is not None:
            self._writer.put(event, fields, admin=admin)

    async def settled(self) -> None:
        """Wait until all records so far are in the file, and flushed to the disk as `fsync` requires.

        Raises:
            UnavailableError: The records cannot be written.
        """
        if self._writer is not None and await self._writer.settled() is not None:
            raise _unavailable()

    def check(self) -> None:
        """Check that a run may start.

        Raises:
            UnavailableError: Records cannot be written, and `on_full` is "refuse".
        """
        if self._settings.on_full == "refuse" and self.failed:
            raise _unavailable()

    def _on_health_change(self, problem: OSError | None) -> None:
        if problem is None:
            logger.warning("writing the audit log works again")
            return
        effect = "new runs and changes by admins" if self._settings.on_full == "refuse" else "changes by admins"
        logger.error("the audit log cannot be written: %s; refusing %s", problem, effect)
        self._report(_unavailable())


def _unavailable() -> UnavailableError:
    return UnavailableError("the audit log cannot be written", code="audit_unavailable", retry_after=RETRY_SECONDS)
