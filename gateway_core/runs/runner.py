"""The gateway's implementation of the SDK's default runner, which every run uses, including runs of an agent's code.

Inside a request it injects the gateway's models and hooks and relays the run's events. Outside a request it behaves
like the SDK's runner. It is stateless, so several gateways in one process share it.

The SDK marks `set_default_agent_runner` as experimental, so `self_test` verifies at each start that it works.
"""

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents import Agent, RunConfig, RunHooks, RunState
from agents import run as agents_run
from agents.models.multi_provider import MultiProvider
from agents.models.openai_provider import OpenAIProvider
from agents.run import AgentRunner, CallModelData, ModelInputData, Runner, set_default_agent_runner

from gateway_core.catalog.agent_graph import reachable
from gateway_core.errors import PluginError, RunError
from gateway_core.runs import answer_format, streaming_fallback
from gateway_core.runs.call_details import HOSTED_CALLS, call_id, call_name, get
from gateway_core.runs.error_mapping import failed_tool
from gateway_core.runs.event_relay import EventRelay, output_text
from gateway_core.runs.run_scope import POSITION, Position, RunScope, WorkflowState
from gateway_core.runs.workflow import with_history
from gateway_core.sdk import compat, patches
from gateway_core.sdk.global_settings import RUNNER, RUNNER_ADVICE
from gateway_core.types import Usage

logger = logging.getLogger(__name__)

# Response item types of the tool calls that OpenAI's servers execute.
_HOSTED_CALLS = frozenset({"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"})


class GatewayRunner(AgentRunner):
    """Runs agents as the SDK does, with the models, hooks and settings of the request's scope."""

    async def run(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        position = POSITION.get()
        if position is None:
            return await super().run(starting_agent, input, **options)
        scope = position.scope
        if asyncio.get_running_loop() is not scope.loop:
            # A synchronous tool called `run_sync` in its thread. The models' connections belong to the gateway's loop.
            coroutine = self.run(starting_agent, input, **options)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, scope.loop))
        scope.runs += 1
        _adopt(scope, starting_agent)
        answers = _answers(position, starting_agent)
        given = input
        workflow = scope.workflow if position.depth == 0 else None
        if workflow is not None:
            if options.get("session") is None:  # the author's own session already contains the earlier turns
                given = with_history(input, workflow, scope.text)
            workflow.runs += 1
        with _deeper(position, answers=answers):
            options = _with_scope(options, scope, starting_agent, answers=answers)
            relay = EventRelay(scope, starting_agent, answers=answers)
            if isinstance(given, RunState):
                # The SDK executes the approved calls before it calls `on_agent_start`.
                await _permit(scope, compat.current_agent_of(given))
                relay.resume(given.get_interruptions())
            try:
                if scope.live:
                    result = await self._follow(relay, scope, starting_agent, given, options)
                else:
                    result = await super().run(starting_agent, given, **options)
                    for item in result.new_items[_relayed_before(given) :]:
                        relay.item(item)
            except BaseException as error:
                options["hooks"].aborted(error)
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
            workflow.answer_text += relay.answer
            if workflow.last_output is None or not _is_step(workflow, starting_agent):
                workflow.last_output = result.final_output
        return result

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **options: Any) -> Any:
        position = POSITION.get()
        if position is None:
            return super().run_streamed(starting_agent, input, **options)
        position.scope.runs += 1
        _adopt(position.scope, starting_agent)
        # The author's code reads the streamed run, and decides whether to pass its text on.
        with _deeper(position, answers=False):
            return super().run_streamed(
                starting_agent, input, **_with_scope(options, position.scope, starting_agent, answers=False)
            )

    async def _follow(
        self, relay: EventRelay, scope: RunScope, agent: Agent[Any], input: Any, options: dict[str, Any]
    ) -> Any:
        """Run the agent streamed and relay each event immediately, although the caller awaits the result.

        The result has every public attribute of a `RunResult`.
        """
        result = super().run_streamed(agent, input, **options)
        checks = len(agent.input_guardrails)
        hold_to_end = scope.hold_answers and _has_output_guardrails(agent)
        hooks = options["hooks"]
        if checks or hold_to_end:
            relay.hold()
        try:
            async for event in result.stream_events():
                if hooks.awaits_first_chunk:
                    hooks.on_stream_event(event)
                relay.event(event)
                if relay.held and not hold_to_end and len(result.input_guardrail_results) >= checks:
                    relay.release()
        finally:
            if not result.is_complete:
                # Leaving the loop does not stop the SDK: the run would continue, and be billed.
                result.cancel()
        return result


class ScopeHooks(RunHooks[Any]):
    """Counts the tokens of each model call, records tool calls, and calls the author's own hooks.

    Args:
        scope: The scope that accumulates the usage.
        inner: The hooks that the author passed to the run.
        model: The model of the run's configuration, which takes precedence over its agents' models.
    """

    def __init__(self, scope: RunScope, inner: RunHooks[Any] | None, model: Any = None) -> None:
        self._scope = scope
        self._inner = inner or RunHooks()
        self._model = model
        self._calls: set[int] = set()
        self.awaits_first_chunk = False
        """Whether a model call is in flight and has not returned its first chunk; only set if calls are recorded."""

    def aborted(self, error: BaseException) -> None:
        """Record that the run has failed or was cancelled: its active tool calls have no result."""
        if self._scope.tools is not None and self._calls:
            self._scope.tools.close(self._scope, self._calls, failed_tool(error))
        if self._scope.models is not None:
            self._scope.models.aborted(self, error)

    def on_stream_event(self, event: Any) -> None:
        """Record the first chunk of a model's response, if the event is one."""
        if self._scope.models is not None and event.type == "raw_response_event":
            self._scope.models.first_chunk(self)
            self.awaits_first_chunk = False

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        used = response.usage
        usage = Usage(
            used.requests or 1,
            used.input_tokens,
            used.output_tokens,
            used.input_tokens_details.cached_tokens or 0,
            used.output_tokens_details.reasoning_tokens or 0,
        )
        self._scope.usage += usage
        if self._scope.models is not None:
            self._scope.models.ended(self, usage)
        if self._scope.tools is not None:
            for item in response.output:
                if item.type in HOSTED_CALLS:
                    failed = get(item, "status") == "failed" or bool(get(item, "error"))
                    self._scope.tools.hosted(self._scope, agent, call_name(item), call_id(item), failed=failed)
        await self._inner.on_llm_end(context, agent, response)

    async def on_llm_start(self, context: Any, agent: Any, system_prompt: Any, input_items: Any) -> None:
        if self._scope.fatal is not None:
            # Other code caught the error, such as the SDK's for an agent as a tool. Make no further model calls.
            raise self._scope.fatal
        self._scope.finish_reason = None
        if (position := POSITION.get()) is not None:
            position.agent = agent
        # The agent's own hooks, or a tool, may have added tools to it since it started.
        _adopt(self._scope, agent)
        if self._scope.models is not None:
            self._scope.models.began(self, agent.name, self._model or agent.model)
            self.awaits_first_chunk = True
        await self._inner.on_llm_start(context, agent, system_prompt, input_items)

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        await _permit(self._scope, agent)
        # Before the SDK reads its tools: a handoff may have just created the agent.
        _adopt(self._scope, agent)
        await self._inner.on_agent_start(context, agent)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        await self._inner.on_agent_end(context, agent, output)

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        await self._inner.on_handoff(context, from_agent, to_agent)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        if self._scope.tools is not None:
            await self._scope.tools.check_unguarded(self._scope, context, agent, tool)
            self._scope.tools.began(self._scope, context, agent, tool)
            self._calls.add(id(context))
        await self._inner.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        if self._scope.tools is not None:
            self._scope.tools.ended(self._scope, context, tool)
            self._calls.discard(id(context))
        await self._inner.on_tool_end(context, agent, tool, result)


_RUNNER = GatewayRunner()


def install() -> None:
    """Install the `GatewayRunner` as the SDK's default runner. Process-wide and idempotent."""
    set_default_agent_runner(_RUNNER)
    agents_run.set_default_agent_runner = _keep_runner
    patches.install(streaming_fallback.decorate, _guard, output_text)


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


def _adopt(scope: RunScope, agent: Any) -> None:
    if scope.tools is not None:
        scope.tools.adopt(scope, agent)


def _guard(tools: list[Any]) -> None:
    """Put the guard on the tools that a sandbox gives an agent for one run."""
    position = POSITION.get()
    if position is not None and position.scope.tools is not None:
        position.scope.tools.guard(tools)


async def _permit(scope: RunScope, agent: Any) -> None:
    if scope.cross_agent is not None:
        await scope.cross_agent.permit(scope, agent)


def _answers(position: Position, agent: Agent[Any]) -> bool:
    """Whether a run that starts at this position produces the answer."""
    if position.depth > 0:
        return False
    workflow = position.scope.workflow
    if workflow is None:
        return True
    # Structured output is usually input for a later step. If it is the answer, it is sent when it is complete.
    return agent.output_type in (None, str) and workflow.terminal.includes(sys._getframe())


def _relayed_before(input: Any) -> int:
    """Return the number of items that a resumed run relayed before it paused."""
    return compat.items_before_pause(input) if isinstance(input, RunState) else 0


def _is_step(workflow: WorkflowState, agent: Agent[Any]) -> bool:
    """Whether a workflow's run only prepares another one, such as a classifier that feeds a branch."""
    return agent.output_type not in (None, str) and not workflow.terminal.includes(sys._getframe())


@contextmanager
def _deeper(position: Position, *, answers: bool) -> Iterator[None]:
    token = POSITION.set(Position(position.scope, position.depth + 1, answers=answers))
    try:
        yield
    finally:
        POSITION.reset(token)


def _is_complete_text(scope: RunScope, result: Any) -> bool:
    """Whether a run returned the text of an agent without an output type, and not only a part of it or a refusal."""
    cut_off = scope.refused or scope.finish_reason in ("length", "content_filter")
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


def _has_output_guardrails(agent: Agent[Any]) -> bool:
    return any(each.output_guardrails for each in reachable(agent))
