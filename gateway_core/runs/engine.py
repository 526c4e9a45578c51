"""Starts runs, publishes their progress as RunEvents, and reports the outcome of each run.

It does not render events: every HTTP surface reads the same events from an `ActiveRun`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from agents import (
    InputGuardrailTripwireTriggered,
    ModelBehaviorError,
    ModelRefusalError,
    OutputGuardrailTripwireTriggered,
    Runner,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)
from attrs import evolve

from gateway_core.catalog.runnables import AgentRunnable, DiagnosisRunnable, InputKind, WorkflowRunnable
from gateway_core.catalog.tool_binding import ToolBinder
from gateway_core.config.settings import Config
from gateway_core.errors import GatewayError, RunError, RunTimeoutError, UnavailableError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.specs import RecordStore
from gateway_core.runs.active_run import ActiveRun
from gateway_core.runs.approvals import Approvals, question_of, verdict_of
from gateway_core.runs.background_tasks import answer_task
from gateway_core.runs.client_calls import ClientCalls
from gateway_core.runs.client_tools import ClientTools
from gateway_core.runs.cross_agent_authorization import CrossAgentAuthorization
from gateway_core.runs.error_mapping import as_gateway_error, place_of, tool_error_detail
from gateway_core.runs.leftover_files import LeftoverFiles
from gateway_core.runs.leftover_processes import LeftoverProcesses
from gateway_core.runs.model_calls import ModelCalls, ModelNames
from gateway_core.runs.process_watch import ProcessWatch
from gateway_core.runs.request_model import RequestModelProvider
from gateway_core.runs.run_events import Completed, Failed, RunEvent, TextDelta
from gateway_core.runs.run_request import RunRequest
from gateway_core.runs.run_scope import POSITION, Position, RunScope, ScriptState, WorkflowState
from gateway_core.runs.run_stats import RunStats
from gateway_core.runs.sandbox_lease import SandboxLease
from gateway_core.runs.sandboxes import Sandboxes
from gateway_core.runs.session_memory import SessionMemory, new_items
from gateway_core.runs.tool_authorization import ToolAuthorization
from gateway_core.runs.workflow import attachments, history, run_workflow
from gateway_core.sdk.global_settings import RUNNER, RUNNER_ADVICE
from gateway_core.types import AgentEntry, Catalog, Outcome, Principal, RunContext

logger = logging.getLogger(__name__)

_GUARDRAILS = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)


class Engine:
    """Starts and tracks the runs of one gateway.

    Args:
        hooks: Supplies models and admissions, and receives the outcome of each run.
        config: Limits of runs, and the operator's settings for agents.
        tool_binder: Binds tools to agents that are created during a run.
        records: Stores runs that wait for approval.
        catalog: Returns the current catalog.
        watch: Restores process-wide settings that runs change.
    """

    def __init__(
        self,
        hooks: Hooks,
        config: Config,
        tool_binder: ToolBinder,
        records: RecordStore,
        catalog: Callable[[], Catalog],
        watch: ProcessWatch,
    ) -> None:
        self._watch = watch
        self._approvals = Approvals(records, config.runs.approval_timeout)
        self._client_calls = ClientCalls(records, config.runs.approval_timeout)
        self._memory = SessionMemory(hooks)
        self._hooks = hooks
        self._config = config
        self._tools = ToolAuthorization(
            hooks, self.announce, tool_binder, config.runs.refused_tool, config.runs.max_tool_calls
        )
        self.sandboxes = Sandboxes(config.runs.sandbox)
        """The workspaces of agents that work in a sandbox."""
        self._cross_agent = CrossAgentAuthorization(hooks, catalog, self.announce)
        self._active: set[ActiveRun] = set()
        self._streams = 0
        self.run_stats: dict[str, RunStats] = {}
        """Statistics by agent id."""
        self.leftovers: LeftoverProcesses | None = None
        """Ends the processes that outlive their runs; `None` unless the gateway owns its process."""
        self.files = LeftoverFiles(lambda: self.active)
        """Finds the descriptors that tools leave open."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False

    def configure(self, config: Config) -> None:
        """Use another configuration for subsequent runs."""
        self._config = config
        self._approvals.seconds = self._client_calls.seconds = config.runs.approval_timeout
        self._tools.refused = config.runs.refused_tool
        self._tools.max_calls = config.runs.max_tool_calls
        self.sandboxes.configure(config.runs.sandbox)

    def watch_process(self) -> None:
        """Watch for the processes and open files of ended runs, because no other code uses this process."""
        self.leftovers = LeftoverProcesses()
        self._tools.files = self.files

    @property
    def active(self) -> int:
        """Number of active runs."""
        return len(self._active)

    def start(self, request: RunRequest) -> ActiveRun:
        """Create a run. Entering it as an async context manager starts it.

        Raises:
            UnavailableError: The gateway is shutting down, or has reached its limit of runs or streams.
        """
        self.refuse_when_stopping()
        if self.active >= self._config.runs.max_runs:
            raise UnavailableError("too many active runs; retry later", code="too_many_runs", retry_after=1)
        if request.live and self._streams >= self._config.runs.max_streams:
            raise UnavailableError("too many active streams; retry later", code="too_many_streams", retry_after=1)
        served = request.served
        scope = RunScope(
            request.run,
            self._hooks.model_provider(request.run, served.entry),
            # The answer to a task is not streamed, so that a failed attempt sends no partial text.
            live=request.live and request.task is None,
            system=request.system,
            settings=request.settings,
            text=request.text,
            tool_errors={} if request.show_tool_errors else None,
            answer_format=request.answer_format if request.task is None else None,
            client_tools=_client_tools(request),
            hold_answers=self._config.runs.output_guardrails == "buffer",
            entry=served.entry,
            tools=self._tools,
            cross_agent=self._cross_agent,
            sandbox=SandboxLease(self.sandboxes, request.run) if self.sandboxes.client_name else None,
            processes=self.leftovers.begin() if self.leftovers is not None else None,
        )
        own, task = self._config.agent(served.id), request.task
        model, fallback = (task.model, None) if task else (own.model, served.model)
        if self._hooks.has_model_observers:
            scope.models = ModelCalls(self._hooks, request.run, ModelNames(model, fallback))
        if scope.provider is not None:
            filtered = self._hooks.has_tool_policy
            scope.provider = RequestModelProvider(
                scope.provider, scope, model=model, fallback=fallback, filter_tools=filtered
            )
        return ActiveRun(self, request, scope, own.on_disconnect or self._config.runs.on_disconnect)

    def refuse_when_stopping(self) -> None:
        """Check that new runs may start.

        Raises:
            UnavailableError: The gateway is shutting down.
        """
        if self.stopping:
            raise UnavailableError("the gateway is shutting down", code="shutting_down", retry_after=1)

    @contextmanager
    def importing(self, entry: AgentEntry) -> Iterator[RunScope]:
        """Set the scope for a module's import, in which runs are rejected."""
        run = RunContext(f"import_{entry.id}", Principal("gateway"), entry.id)
        scope = RunScope(run, None, live=False, importing=True)
        token = POSITION.set(Position(scope, 0))
        try:
            yield scope
        finally:
            POSITION.reset(token)

    async def drain(self, timeout: float) -> None:
        """Reject new runs, wait for the active runs to end, and stop those still active after `timeout` seconds."""
        self.stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            for run in list(self._active):
                run.stop(UnavailableError("the gateway is shutting down", code="shutting_down"))

    def admissions(self, request: RunRequest) -> list[AbstractAsyncContextManager[None]]:
        """Return the contexts that a run must enter before it starts."""
        return self._hooks.admissions(request.run, request.served.entry)

    async def perform(self, request: RunRequest, scope: RunScope) -> None:
        """Perform the run, and put its final event on the channel.

        Raises:
            asyncio.CancelledError: The task was cancelled from outside. No other exception is raised.
        """
        agent_gateway_run = request.run  # noqa: F841 - read by `stack_attribution.attributed_run`
        task = asyncio.current_task()
        token = POSITION.set(Position(scope, 0))
        limit = self._config.runs.timeout
        try:
            async with asyncio.timeout(limit) as clock:
                self._watch.check(request.served.id)
                await self._run(request, scope)
                changes = self._watch.check(request.served.id)
                if any(change.setting.label == RUNNER for change in changes):
                    raise _bypassed()
                if scope.fatal is not None:
                    raise scope.fatal
            last: RunEvent = Completed(scope.usage, _finish_reason(scope))
        except _GUARDRAILS as trip:
            logger.info("guardrail tripped: agent %s, %s", request.served.id, type(trip).__name__)
            scope.channel.put(TextDelta(self._config.runs.refusal))
            last = Completed(scope.usage, "content_filter")
        except ModelRefusalError as refusal:
            if not scope.live:  # a stream has sent the text already
                scope.channel.put(TextDelta(refusal.refusal))
            last = Completed(scope.usage, "content_filter")
        except ModelBehaviorError as error:
            # Cut off or filtered before it said anything usable: an end that clients know, not a failure.
            reason = _finish_reason(scope)
            ended = reason != "stop" and scope.fatal is None
            last = (
                Completed(scope.usage, reason) if ended else Failed(as_gateway_error(scope.fatal or error), scope.usage)
            )
        except TimeoutError as error:
            timed_out = RunTimeoutError(f"the run exceeded its timeout ({limit:g} s)", hint="raise [runs] timeout")
            last = Failed(timed_out if clock.expired() else as_gateway_error(error), scope.usage)
        except BaseException as error:
            # A `TaskGroup` of Python 3.11 and 3.12 that failed leaves its cancellation of the task counted.
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # A fatal error takes precedence over the exception that the agent's code or the SDK converted it to.
            failure = as_gateway_error(scope.fatal or error)
            if request.show_tool_errors:
                failure.detail = tool_error_detail(failure)
            last = Failed(failure, scope.usage)
        finally:
            POSITION.reset(token)
            self._tools.close(scope)
            if scope.sandbox is not None:
                scope.sandbox.release()
            if scope.models is not None:
                scope.models.close()
        scope.channel.put(last)

    async def _run(self, request: RunRequest, scope: RunScope) -> None:
        runnable = request.served.runnable
        if request.task is not None:
            await answer_task(request.task, request.items, scope)
        elif isinstance(runnable, AgentRunnable):
            await self._run_agent(runnable, request, scope)
        elif isinstance(runnable, DiagnosisRunnable):
            scope.channel.put(TextDelta(runnable.text))
        elif isinstance(runnable, WorkflowRunnable):
            takes_history = self._config.runs.workflow_history and runnable.takes is not InputKind.MESSAGES
            earlier = history(request.items) if takes_history else ()
            state = scope.workflow = WorkflowState(runnable.terminal, earlier)
            if runnable.takes is not InputKind.MESSAGES:
                state.attachments = attachments(request.items)
            if runnable.takes is InputKind.SCRIPT:
                message = request.items[len(history(request.items)) :]
                state.script = ScriptState([*earlier, *message], message)
            await run_workflow(
                runnable, scope, state, items=request.items, text=request.text, metadata=request.metadata
            )

    async def _run_agent(self, runnable: AgentRunnable, request: RunRequest, scope: RunScope) -> None:
        scope.may_pause = True
        request = await self._for_other_gateway(request)
        state = await self._resumed(runnable, request, scope)
        async with self._memory.of(request.run, request.served) as session:
            items = request.items if session is None or state else await new_items(session, request.items)
            # `Runner.run` delegates to the default runner, which is `GatewayRunner`.
            result = await Runner.run(
                runnable.agent,
                state or [*items],
                context=None if state else runnable.context_for(request.run),
                max_turns=self._config.runs.max_turns,
                session=session,
            )
        if not scope.runs:
            raise _bypassed()
        if result.interruptions:
            if scope.sandbox is not None:
                scope.sandbox.paused = True
            await self._pause(result, request, scope)

    async def _for_other_gateway(self, request: RunRequest) -> RunRequest:
        """Pass a verdict on an approval request of another gateway, which is the agent's model, on as a message."""
        if request.verdict is None or await self._approvals.issued(request.verdict[0], request.run):
            return request
        said = request.verdict[1].as_text()
        return evolve(request, verdict=None, items=[*request.items, {"role": "user", "content": said}], text=said)

    async def _pause(self, result: Any, request: RunRequest, scope: RunScope) -> None:
        """Store an interrupted run, and ask the client for a decision or for results.

        A run that also needs approval asks for it in the next request: clients send the results of calls at once.
        """
        if scope.client_tools is not None:
            calls = await self._client_calls.ask(result, request.run, scope.client_tools)
            if calls is not None:
                scope.channel.put(calls)
                scope.awaits_client = True
                return
        scope.channel.put(await self._approvals.ask(result, request.run))

    async def _resumed(self, runnable: AgentRunnable, request: RunRequest, scope: RunScope) -> Any:
        """Return the state of a paused run if the request has the results of its calls or a decision on approval."""
        if scope.client_tools is not None and request.verdict is None:
            turns = self._config.runs.max_turns
            state = await self._client_calls.resume(request.items, runnable, request.run, scope.client_tools, turns)
            if state is not None:
                return state
        if request.verdict is not None:
            return await self._approvals.resume(*request.verdict, runnable, request.run)
        verdict = verdict_of(request.text)
        if len(request.items) == 1:  # the client sends only new messages
            question = await self._approvals.take_from_chat(request.run)
            if question is None or verdict is None:
                return None
            return await self._approvals.resume(question, verdict, runnable, request.run)
        question = question_of(request.items)
        if question is None or not await self._approvals.issued(question, request.run):
            return None
        if verdict is None:
            await self._approvals.drop(question, request.run)
            return None
        return await self._approvals.resume(question, verdict, runnable, request.run)

    def entered(self, run: ActiveRun) -> None:
        """Record that a run started."""
        self._active.add(run)
        self._streams += run.live
        self.run_stats.setdefault(run.context.agent_id, RunStats()).began()
        self._idle.clear()

    def left(self, run: ActiveRun, scope: RunScope, outcome: Outcome) -> None:
        """Record that a run ended, and report it once to the log and the plugins."""
        self._active.discard(run)
        self._streams -= run.live
        self.run_stats[run.context.agent_id].ended(run.context, outcome, scope)
        if self.leftovers is not None and scope.processes is not None:
            self._watch.exclude(scope.processes.ids)
            mode = self._config.agent(run.context.agent_id).leftover_processes or self._config.runs.leftover_processes
            self.leftovers.finish(scope, keep=mode == "keep")
        if not self._active:
            self._idle.set()
            self._watch.check(run.context.agent_id, idle=True)
        if outcome.error is not None:
            cause = outcome.error.__cause__
            logger.warning(
                "request %s: the run of %s failed: %s%s",
                run.context.request_id,
                run.context.agent_id,
                outcome.error,
                f" [{outcome.error.upstream or f'{type(cause).__name__} at {place_of(cause)}'}]" if cause else "",
            )
            # An error with a request id is already announced, such as a denied authorization.
            if outcome.error.request_id is None:
                self.announce(outcome.error, run.context)
        self._hooks.on_run_end(run.context, outcome)

    def announce(self, error: GatewayError, run: RunContext) -> None:
        """Report a run's error to every plugin."""
        error.agent_id = run.agent_id
        error.request_id = run.request_id
        error.principal_id = run.principal.id
        self._hooks.on_error(error)


def _bypassed() -> RunError:
    return RunError(f"{RUNNER} was replaced during the run", hint=RUNNER_ADVICE, code="runner_replaced")


def _client_tools(request: RunRequest) -> ClientTools | None:
    runnable = request.served.runnable
    if request.client_tools is None or request.task is not None or not isinstance(runnable, AgentRunnable):
        return None
    return ClientTools(runnable.agent, request.client_tools)


def _finish_reason(scope: RunScope) -> str:
    if scope.refused:
        return "content_filter"
    if scope.finish_reason in ("length", "content_filter"):
        return scope.finish_reason
    return "tool_calls" if scope.awaits_client else "stop"
