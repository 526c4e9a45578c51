"""Runs a workflow: an async function or generator whose own code runs agents.

The workflow's input is built from the request. Its answer is, in order of precedence, its return value, the text of its
terminal run, or the output of its last run. This module is independent of HTTP.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from agents import RunResult, RunResultStreaming, RunState

from gateway_core.catalog.runnables import InputKind, WorkflowRunnable
from gateway_core.errors import InvalidRequestError
from gateway_core.runs.event_relay import PARAGRAPH, as_text
from gateway_core.runs.run_events import TextDelta
from gateway_core.runs.run_scope import RunScope, WorkflowState
from gateway_core.runs.script import call, completed, run_script

TEXT_FIELD = "input_as_text"


async def run_workflow(
    workflow: WorkflowRunnable,
    scope: RunScope,
    state: WorkflowState,
    *,
    items: Sequence[Mapping[str, Any]],
    text: str,
    metadata: Mapping[str, Any],
) -> None:
    """Run a workflow, and put its answer on the scope's channel.

    Args:
        workflow: The workflow to run.
        scope: The request's scope; terminal runs of the workflow put their text on its channel.
        state: The progress of the workflow, `scope.workflow`.
        items: The whole conversation.
        text: The last user message.
        metadata: The request's `metadata`, for further fields of the workflow's input.

    Raises:
        InvalidRequestError: `metadata` lacks required fields of the workflow's input, or its values are invalid.
    """
    if state.script is not None:
        returned = await run_script(workflow, state)
    else:
        given = _input(workflow, items, text, metadata)
        if inspect.isasyncgenfunction(workflow.function):
            async for piece in call(workflow, given):
                scope.channel.put(TextDelta(as_text(piece)))
            return
        returned = await completed(workflow, given)
    answer = _answer(returned, state)
    if not answer:
        return
    sent = state.answer_text.strip()
    if not sent:
        scope.channel.put(TextDelta(answer))
    elif answer.startswith(sent):
        scope.channel.put(TextDelta(answer[len(sent) :]))
    elif not sent.endswith(answer.strip()):
        scope.channel.put(TextDelta(PARAGRAPH + answer))


def history(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the conversation before the last user message."""
    return list(items[: _last_user_message(items)])


def attachments(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the images, files and audio of the last user message, which a workflow of text does not receive."""
    content = items[_last_user_message(items)].get("content") if items else None
    return [part for part in content if part.get("type") != "input_text"] if isinstance(content, list) else []


def with_history(given: Any, state: WorkflowState, text: str, *, own_turns: bool = False) -> Any:
    """Return the input of a workflow's run.

    The earlier turns precede it, and the attachments of the last user message are part of it, if the run is the first
    or its input is that message. In a script, the message replaces the input of the first run, unless `input()`
    returned it before.

    Args:
        given: The input that the workflow passes.
        state: The progress of the workflow. The run is counted.
        text: The last user message.
        own_turns: Whether the author's own session contains the earlier turns.
    """
    state.runs += 1
    if isinstance(given, RunState):
        return given
    script = state.script
    if script is not None:
        first = not script.taken
        if first:
            script.taken, script.own_text = True, _text_of(given)
        if first or (script.own_text is not None and _text_of(given) == script.own_text):
            state.attached = True
            return [*(script.message if own_turns else script.conversation)]
    if state.runs > 1 and _text_of(given) != text:
        return given
    if state.attachments and isinstance(given, str | list):
        given = _with_attachments(given, state.attachments, text)
        state.attached = True
    if own_turns or not state.history:
        return given
    if isinstance(given, str):
        return [*state.history, {"role": "user", "content": given}]
    return [*state.history, *given] if isinstance(given, list) else given


def _last_user_message(items: Sequence[Mapping[str, Any]]) -> int:
    return max((i for i, item in enumerate(items) if item.get("role") == "user"), default=0)


def _with_attachments(given: Any, parts: Sequence[Mapping[str, Any]], text: str) -> list[Any]:
    """Return a run's input with parts in its message with this text, or else in its last user message."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else [*given]
    users = [i for i, item in enumerate(items) if isinstance(item, Mapping) and item.get("role") == "user"]
    if not users:
        return [*items, {"role": "user", "content": [*parts]}]
    place = next((i for i in users if _text_of([items[i]]) == text), users[-1])
    content = items[place].get("content")
    own = content if isinstance(content, list) else [{"type": "input_text", "text": content}]
    items[place] = {**items[place], "content": [*own, *parts]}
    return items


def _input(
    workflow: WorkflowRunnable, items: Sequence[Mapping[str, Any]], text: str, metadata: Mapping[str, Any]
) -> Any:
    if workflow.takes is InputKind.MESSAGES:
        return [dict(item) for item in items]
    if workflow.input_type is None:
        return text
    parameters = inspect.signature(workflow.input_type).parameters
    named = {name: value for name, value in metadata.items() if name in parameters}
    field = TEXT_FIELD if TEXT_FIELD in parameters else next(iter(parameters), TEXT_FIELD)
    named[field] = text
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and name not in named
    ]
    if missing:
        raise InvalidRequestError(
            f"missing input of the agent's workflow: {', '.join(missing)}",
            param="metadata",
            hint="send them in `metadata`",
        )
    try:
        return workflow.input_type(**named)
    except ValueError as error:  # includes pydantic's ValidationError
        raise InvalidRequestError(
            "the values in `metadata` are not valid input of the agent's workflow", param="metadata"
        ) from error


def _answer(returned: Any, state: WorkflowState) -> str:
    if isinstance(returned, RunResult | RunResultStreaming):
        returned = returned.final_output
    if isinstance(returned, Mapping):
        for key in ("output_text", "message"):
            if isinstance(returned.get(key), str):
                return str(returned[key])
    if returned is None:
        # Exports often return `None`; the last run that is not a step then has the answer.
        return "" if state.answer_text else as_text(state.last_output) if state.last_output is not None else ""
    return as_text(returned)


def _text_of(given: Any) -> str | None:
    """Return the text of the first message of a run's input."""
    if isinstance(given, str):
        return given
    first = given[0] if isinstance(given, list) and given else None
    content = first.get("content") if isinstance(first, Mapping) else None
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else None
