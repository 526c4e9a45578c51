"""Restores process-wide settings that tools, workflows and other code of a run changed.

The settings of the SDK are checked at each run. Those of the process are checked only in a server, and when no run is
active, because a tool may change them for a moment.
"""

import logging
import time
from collections.abc import Callable, Iterable

from gateway_core.runs.child_processes import attached_children
from gateway_core.sdk.global_settings import GlobalSettings
from gateway_core.sdk.process_state import Change, ProcessState

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0


class ProcessWatch:
    """Checks the settings before and after each run.

    Args:
        settings: The SDK's process-wide settings.
    """

    def __init__(self, settings: GlobalSettings) -> None:
        self._settings = settings
        self._process: ProcessState | None = None
        self._is_loading: Callable[[], bool] = lambda: False
        self._checked = 0.0
        self._agents: set[str] = set()
        # The child processes at the start of the active runs; `None` if they are not compared.
        self._children: dict[int, str] | None = None
        self._counted = 0.0

    def include_process(self, process: ProcessState, is_loading: Callable[[], bool]) -> None:
        """Check the settings of the process, too.

        Args:
            process: The settings.
            is_loading: Whether an agent loads, which restores the settings itself.
        """
        self._process, self._is_loading = process, is_loading

    def check(self, agent_id: str, *, idle: bool = False) -> list[Change]:
        """Restore what was changed, and return it.

        Args:
            agent_id: The agent whose run begins or ends.
            idle: Whether no other run is active.
        """
        now = time.monotonic()
        if not self._agents and self._process is not None and now - self._counted >= _INTERVAL_SECONDS:
            self._counted, self._children = now, attached_children()
        self._agents.add(agent_id)
        changes = self._settings.restore()
        if idle and self._process is not None and now - self._checked >= _INTERVAL_SECONDS and not self._is_loading():
            self._checked = now
            changes += self._process.restore()
        for change in changes:
            logger.warning("a run changed %s [agents: %s]", change.text(), ", ".join(sorted(self._agents)))
        if idle:
            self._report_children()
            self._agents.clear()
        return changes

    def exclude(self, processes: Iterable[int]) -> None:
        """Do not report these child processes of the active runs, because they are reported elsewhere."""
        if self._children is not None:
            self._children.update(dict.fromkeys(processes, ""))

    def _report_children(self) -> None:
        known, self._children = self._children, None
        if known is None:
            return
        left = [f"{name} ({pid})" for pid, name in attached_children().items() if pid not in known]
        if left:
            names = ", ".join(sorted(self._agents))
            logger.warning("child processes are still running after the run: %s [agents: %s]", ", ".join(left), names)
