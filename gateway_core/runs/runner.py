"""The gateway's implementation of the SDK's default runner, which every run uses, including runs of an agent's code.

Inside a request it injects the gateway's models and hooks and relays the run's events. Outside a request it behaves
like the SDK's runner. It is stateless, so several gateways in one process share it.

The SDK marks `set_default_agent_runner` as experimental, so `self_test` verifies at each start that it works.
"""

import asyncio
import dataclasses
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from agents import Agent, ModelBehaviorError, RunConfig, RunState
from agents import run as agents_run
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider
from agents.run import AgentRunner, CallModelData, ModelInputData, Runner, set_default_agent_runner
from agents.sandbox import SandboxAgent

from gateway_core.catalog.agent_graph import reachable
from gateway_core.catalog.import_stop import RunAtImportError
from gateway_core.errors import PluginError, RunError
from gateway_core.runs import answer_format, streaming_fallback
from gateway_core.runs.event_relay import EventRelay, output_text
from gateway_core.runs.run_scope import POSITION, Position, RunScope, WorkflowState
from gateway_core.runs.scope_hooks import ScopeHooks, adopt, permit
from gateway_core.runs.workflow import with_history
from gateway_core.sdk import compat, patches
from gateway_core.sdk.global_settings import RUNNER, RUNNER_ADVICE
from gateway_core.small_queue import SmallQueue

logger = logging.getLogger(__name__)

_CUT_OFF = ("length", "content_filter")


class GatewayRunner(AgentRunner):
    """Runs agents as the SDK does, with the models, hooks and settings of the request's scope."""

    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        position = POSITION.get()
        if position is None:
            return await super().run(starting_agent, input, **options)
        scope = position.scope
        _reject_at_import(scope)
        terminal = _is_terminal(position)
        if asyncio.get_running_loop() is not scope.loop:
            # A synchronous tool or script called `run_sync` in its thread. The models' connections belong to the
            # gateway's loop.
            return await _in_gateway_loop(scope, self._run(position, terminal, starting_agent, input, options))
        return await self._run(position, terminal, starting_agent, input, options)

    async def _run(
        self, position: Position, terminal: bool, starting_agent: Agent[Any], input: Any, options: dict[str, Any]
    ) -> Any:
        scope = position.scope
        scope.runs += 1
        adopt(scope, starting_agent)
        answers = _answers(position, starting_agent, terminal)
        given = input
        workflow = scope.workflow if position.depth == 0 else None
        if workflow is not None:
            own_turns = await _has_turns(options.get("session"), workflow)
            given = with_history(input, workflow, scope.text, own_turns=own_turns)
        with _Deeper(position, answers=answers):
            options = _with_scope(options, scope, starting_agent, answers=answers)
            relay = EventRelay(scope, starting_agent, answers=answers)
            if isinstance(given, RunState):
                # The SDK executes the approved calls before it calls `on_agent_start`.
                await permit(scope, compat.current_agent_of(given))
                relay.resume(given.get_interruptions())
            try:
                if scope.live:
                    # The caller awaits the result, which has every public attribute of a `RunResult`.
                    result: Any = self._started(starting_agent, given, options)
                    async for _ in _relayed(result, relay, scope, starting_agent, options["hooks"]):
                        pass
                else:
                    result = await super().run(starting_agent, given, **options)
                    for item in result.new_items[_relayed_before(given) :]:
                        relay.item(item)
            except BaseException as error:
                hooks = options["hooks"]
                hooks.aborted(error)
                # A stream has sent the text already. With guardrails, the text was not checked.
                cut_off = isinstance(error, ModelBehaviorError) and scope.finish_reason in _CUT_OFF
                if cut_off and hooks.last is not None and not scope.live and not _has_guardrails(starting_agent):
                    relay.cut_off(*hooks.last)
                raise
        if answers and result.interruptions and not scope.may_pause:
            tools = ", ".join(dict.fromkeys(item.name or "a tool" for item in result.interruptions))
            raise RunError(
                f"a call of {tools} requires approval, which workflows do not support",
                code="needs_approval",
            )
        relay.finish(result.final_output)
        if answers and scope.answer_format is not None and _is_complete_text(scope, result):
            await asyncio.to_thread(answer_format.check, result.final_output, scope.answer_format)
        if workflow is not None:
            _record(workflow, relay, result, starting_agent, terminal)
        return result

    def run_sync(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        position = POSITION.get()
        if position is not None:
            _reject_at_import(position.scope)
        return super().run_sync(starting_agent, input, **options)

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        position = POSITION.get()
        if position is None:
            return super().run_streamed(starting_agent, input, **options)
        _reject_at_import(position.scope)
        position.scope.runs += 1
        workflow = position.scope.workflow
        if position.depth == 0 and workflow is not None and workflow.script is not None:
            return self._stream_script(position, workflow, _is_terminal(position), starting_agent, input, options)
        adopt(position.scope, starting_agent)
        given = input
        if position.depth == 0 and workflow is not None:
            own_turns = options.get("session") is not None
            given = with_history(input, workflow, position.scope.text, own_turns=own_turns)
        # The author's code reads the streamed run, and decides whether to pass its text on.
        with _Deeper(position, answers=False):
            options = _with_scope(options, position.scope, starting_agent, answers=False)
            return self._started(starting_agent, given, options)

    def _started(self, agent: Agent[Any], input: Any, options: dict[str, Any]) -> Any:
        result = super().run_streamed(agent, input, **options)
        compat.replace_queues(result, SmallQueue)
        return result

    def _stream_script(
        self,
        position: Position,
        workflow: WorkflowState,
        terminal: bool,
        agent: Agent[Any],
        input: Any,
        options: dict[str, Any],
    ) -> Any:
        """Start a streamed run of a script, whose events are relayed as the script reads them, because it prints them.

        If the script has its own loop, the run takes place in the gateway's loop.
        """
        scope = position.scope
        if asyncio.get_running_loop() is not scope.loop:

            async def start() -> Any:
                return self._stream_script(position, workflow, terminal, agent, input, options)

            streamed = _threadsafe(scope, start()).result()
            streamed.stream_events = _stepwise(scope, streamed.stream_events)
            return streamed
        scope.runs += 1
        adopt(scope, agent)
        answers = _answers(position, agent, terminal)
        given = with_history(input, workflow, scope.text, own_turns=options.get("session") is not None)
        with _Deeper(position, answers=answers):
            options = _with_scope(options, scope, agent, answers=answers)
            result: Any = self._started(agent, given, options)
        read = result.stream_events
        relay = EventRelay(scope, agent, answers=answers)

        async def events() -> AsyncIterator[Any]:
            try:
                async for event in _relayed(result, relay, scope, agent, options["hooks"], read):
                    yield event
                relay.finish(result.final_output)
            except BaseException as error:
                options["hooks"].aborted(error)
                raise
            finally:
                _record(workflow, relay, result, agent, terminal)

        result.stream_events = events
        return result


def _reject_at_import(scope: RunScope) -> None:
    if scope.importing:
        scope.rejected_runs += 1
        raise RunAtImportError


_RUNNER = GatewayRunner()


def install() -> None:
    """Install the `GatewayRunner` as the SDK's default runner. Process-wide and idempotent."""
    set_default_agent_runner(_RUNNER)
    agents_run.set_default_agent_runner = _keep_runner
    patches.install(streaming_fallback.decorate, _complete, output_text)


def _keep_runner(runner: AgentRunner | None) -> None:
    """Replaces the SDK's function: ignores the call of an agent, because it would bypass the gateway for all agents."""
    position = POSITION.get()
    if position is None:
        set_default_agent_runner(runner)
        return
    caller = sys._getframe(1)
    place = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}"
    note = f"it set {RUNNER} ({place}); ignored; {RUNNER_ADVICE}"
    if note not in position.scope.notes:
        position.scope.notes.append(note)
        logger.warning("%s: %s", position.scope.run.agent_id, note)


async def self_test() -> None:
    """Verify that `Runner.run` of the installed SDK delegates to the default runner.

    Raises:
        PluginError: It does not; nested runs would bypass the gateway's models.
    """
    expected = object()

    class Probe(AgentRunner):
        async def run(self, *_: Any, **__: Any) -> Any:
            return expected

    set_default_agent_runner(Probe())
    try:
        result: object = await Runner.run(Agent(name="self-test"), "")
    finally:
        install()
    if result is not expected:
        raise PluginError(
            "the installed Agents SDK does not use its default runner",
            source="openai-agents",
            hint="install the version of openai-agents that this release of the gateway requires",
        )


async def _relayed(
    result: Any, relay: EventRelay, scope: RunScope, agent: Agent[Any], hooks: ScopeHooks, read: Any = None
) -> AsyncIterator[Any]:
    """Relay each event of a streamed run, then yield it. Text is held until the guardrails have passed.

    Args:
        result: The streamed run.
        relay: Relays the events.
        scope: The request's scope.
        agent: The agent that the run starts with.
        hooks: The run's hooks.
        read: Returns the events. Default: the method of `result`.
    """
    checks = len(agent.input_guardrails)
    hold_to_end = scope.hold_answers and _has_output_guardrails(agent)
    if checks or hold_to_end:
        relay.hold()
    try:
        async for event in (read or result.stream_events)():
            if hooks.awaits_first_chunk:
                hooks.on_stream_event(event)
            relay.event(event)
            if relay.held and not hold_to_end and len(result.input_guardrail_results) >= checks:
                relay.release()
            yield event
    finally:
        if not result.is_complete:
            # Leaving the loop does not stop the SDK: the run would continue, and be billed.
            result.cancel()


def _complete(agent: Agent[Any], tools: list[Any]) -> list[Any]:
    """Return an agent's tools for a turn: those of a sandbox with the guard on them, and with the client's tools."""
    position = POSITION.get()
    if position is None:
        return tools
    scope = position.scope
    if isinstance(agent, SandboxAgent) and scope.tools is not None:
        scope.tools.guard(tools)
    if scope.client_tools is None or not (position.depth == 0 or position.answers):
        return tools
    return scope.client_tools.complete(agent, tools)


def _record(workflow: WorkflowState, relay: EventRelay, result: Any, agent: Agent[Any], terminal: bool) -> None:
    """Record the answer and the output of a workflow's run."""
    workflow.answer_text += relay.answer
    # Structured output of a run that is not terminal only prepares another run, such as a branch.
    is_step = agent.output_type not in (None, str) and not terminal
    if workflow.last_output is None or not is_step:
        workflow.last_output = result.final_output


async def _has_turns(session: Any, workflow: WorkflowState) -> bool:
    """Whether an author's own session contains the earlier turns. A script may create an empty one for each request."""
    if session is None:
        return False
    return workflow.script is None or bool(await session.get_items(limit=1))


def _threadsafe(scope: RunScope, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
    """Run a coroutine in the gateway's loop for a thread. It is cancelled when the script's run ends."""
    script = scope.workflow.script if scope.workflow is not None else None
    if script is not None and script.over:
        coroutine.close()
        raise RunError("the request of this script has ended", code="run_ended")
    future = asyncio.run_coroutine_threadsafe(coroutine, scope.loop)
    if script is not None:
        script.calls.add(future)
        future.add_done_callback(script.calls.discard)
    return future


async def _in_gateway_loop(scope: RunScope, coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.wrap_future(_threadsafe(scope, coroutine))


def _stepwise(scope: RunScope, read: Callable[[], AsyncIterator[Any]]) -> Callable[[], AsyncIterator[Any]]:
    """Return a function that reads events in the gateway's loop for a script in another loop."""
    end = object()

    async def events() -> AsyncIterator[Any]:
        source = read()

        async def step() -> Any:
            return await anext(source, end)

        while (event := await _in_gateway_loop(scope, step())) is not end:
            yield event

    return events


def _is_terminal(position: Position) -> bool:
    """Whether the caller is at a terminal run of a workflow."""
    workflow = position.scope.workflow
    return position.depth == 0 and workflow is not None and workflow.terminal.includes(sys._getframe())


def _answers(position: Position, agent: Agent[Any], terminal: bool) -> bool:
    """Whether a run that starts at this position produces the answer."""
    if position.depth > 0:
        return False
    if position.scope.workflow is None:
        return True
    # Structured output is usually input for a later step. If it is the answer, it is sent when it is complete.
    return terminal and agent.output_type in (None, str)


def _relayed_before(input: Any) -> int:
    """Return the number of items that a resumed run relayed before it paused."""
    return compat.items_before_pause(input) if isinstance(input, RunState) else 0


class _Deeper:
    """The position one level deeper within a block. Not a generator: each run holds one, and it takes a tenth."""

    __slots__ = ("_position", "_token")

    def __init__(self, position: Position, *, answers: bool) -> None:
        self._position = Position(position.scope, position.depth + 1, answers=answers)

    def __enter__(self) -> None:
        self._token = POSITION.set(self._position)

    def __exit__(self, *_: object) -> None:
        POSITION.reset(self._token)


def _is_complete_text(scope: RunScope, result: Any) -> bool:
    """Whether a run returned the text of an agent without an output type, and not only a part of it or a refusal."""
    cut_off = scope.refused or scope.finish_reason in _CUT_OFF
    return isinstance(result.final_output, str) and not cut_off


def _with_scope(options: dict[str, Any], scope: RunScope, agent: Agent[Any], *, answers: bool) -> dict[str, Any]:
    given = options.get("run_config")
    config = RunConfig(**given) if isinstance(given, dict) else given or RunConfig()
    changes: dict[str, Any] = {}
    if scope.provider is not None and _is_default(config.model_provider):
        changes["model_provider"] = scope.provider
    if scope.sandbox is not None and config.sandbox is None and (sandbox := scope.sandbox.config_for(agent)):
        changes["sandbox"] = sandbox
    if scope.system and answers and config.call_model_input_filter is None:
        changes["call_model_input_filter"] = _add_system
    if given is None:
        # Small local models invent tool names; returning an error to the model is better than failing the run.
        changes["tool_not_found_behavior"] = "return_error_to_model"
    return {
        **options,
        "run_config": dataclasses.replace(config, **changes) if changes else config,
        "hooks": ScopeHooks(scope, options.get("hooks"), config.model),
    }


def _is_default(provider: Any) -> bool:
    """Whether a provider is the default of `RunConfig`, not one that the author chose or configured."""
    if type(provider) is not MultiProvider or provider.provider_map is not None:
        return False
    inner = provider.openai_provider
    return type(inner) is OpenAIProvider and not compat.is_configured(inner)


def _add_system(data: CallModelData[Any]) -> ModelInputData:
    """Append the client's system messages to the instructions of the answering agent and its handoff targets.

    An agent that is used as a tool inherits this filter with its caller's configuration, but it is not the answering
    agent.
    """
    position = POSITION.get()
    model_data = data.model_data
    if position is None or not position.answers or not position.scope.system:
        return model_data
    own = model_data.instructions
    system = position.scope.system
    return ModelInputData(input=model_data.input, instructions=f"{own}\n\n{system}" if own else system)


def _has_guardrails(agent: Agent[Any]) -> bool:
    return bool(agent.input_guardrails) or _has_output_guardrails(agent)


def _has_output_guardrails(agent: Agent[Any]) -> bool:
    return any(each.output_guardrails for each in reachable(agent))
