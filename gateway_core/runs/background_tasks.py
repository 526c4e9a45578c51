"""Answers background tasks of a chat UI, such as title generation, with a model alone.

No agent, tool or guardrail of the served agent runs. The hook `background_task` recognizes these tasks.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agents import Agent, Runner

from gateway_core.runs.error_mapping import as_gateway_error
from gateway_core.runs.run_events import TextDelta
from gateway_core.runs.run_scope import RunScope
from gateway_core.types import BackgroundTask

logger = logging.getLogger(__name__)


async def answer_task(task: BackgroundTask, items: Sequence[Mapping[str, Any]], scope: RunScope) -> None:
    """Put the model's answer on the scope's channel; the task's own answer if no model is available or it fails."""
    if scope.provider is not None and not task.local:
        try:
            await Runner.run(Agent(name=f"task {task.kind}"), [*items], max_turns=1)  # type: ignore[list-item]
            return
        except Exception as error:
            if task.answer is None:
                raise
            logger.info("the model failed on the background task %s: %s", task.kind, as_gateway_error(error))
    scope.channel.put(TextDelta(task.answer or ""))
