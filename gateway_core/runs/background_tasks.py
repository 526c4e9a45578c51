"""Answers what a chat UI asks beside a chat, such as a title, by a model alone: no agent, tool or guardrail runs.

It recognises nothing; the hook `background_task` does.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agents import Agent, Runner

from gateway_core.runs.error_mapping import as_gateway_error
from gateway_core.runs.run_scope import RunScope
from gateway_core.types import BackgroundTask, TextDelta

logger = logging.getLogger(__name__)


async def answer_task(task: BackgroundTask, items: Sequence[Mapping[str, Any]], scope: RunScope) -> None:
    """Put the answer on the scope's channel: the model's, or the task's own where there is no model or it fails."""
    if scope.provider is not None and not task.local:
        try:
            await Runner.run(Agent(name=f"task {task.kind}"), [*items], max_turns=1)  # type: ignore[list-item]
            return
        except Exception as error:
            if task.answer is None:
                raise
            logger.info("no model answered the task %s: %s", task.kind, as_gateway_error(error))
    scope.channel.put(TextDelta(task.answer or ""))
