"""Decides on every tool call by asking the plugins, and announces how each one ended.

A guardrail, put once on each tool object and on each MCP server of an agent's own, asks; run hooks measure. Neither
stands between a tool and its model: what a tool answers, and how its failure reads, stays the SDK's and the author's.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

from agents import FunctionTool
from agents.tool_guardrails import ToolGuardrailFunctionOutput, ToolInputGuardrail, ToolInputGuardrailData

from gateway_core.catalog.tool_binding import ToolBinder
from gateway_core.errors import GatewayError, MaxToolCallsError, ToolError, ToolRefusedError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.runs.error_mapping import place_of
from gateway_core.runs.run_scope import POSITION, ActiveToolCall, RunScope
from gateway_core.tools.origin import ToolOrigin, origin_of
from gateway_core.types import DecisionMade, RunContext, ToolCall, ToolInfo

logger = logging.getLogger(__name__)

_FAILED = "_agent_gateway_failed"
_NO_GATEWAY = "This tool may only be called in a run of the gateway's."


class ToolAuthorization:
    """The tool calls of one gateway.

    Args:
        hooks: Asked whether a call may be made, and told how it ended.
        announce: Tells every plugin of a run's error.
        tool_binder: Equips agents that appear only when they run.
        refused: What becomes of a call that is refused: the model is told, or the run fails.
        max_calls: Of tools in one run.
    """

    def __init__(
        self,
        hooks: Hooks,
        announce: Callable[[GatewayError, RunContext], None],
        tool_binder: ToolBinder,
        refused: Literal["tell", "fail"],
        max_calls: int,
    ) -> None:
        self._hooks = hooks
        self._announce = announce
        self._tool_binder = tool_binder
        self.refused = refused
        self.max_calls = max_calls

    def adopt(self, scope: RunScope, agent: Any) -> None:
        """Equip an agent that is about to run, if that has not been done when it was loaded."""
        if scope.entry is not None:
            self._tool_binder.bind_at_run(agent, scope.entry)

    async def refusal(self, scope: RunScope, tool: ToolInfo) -> ToolRefusedError | None:
        """Ask the plugins; announce the decision, and a refusal as an error."""
        if tool.open and not self._hooks.has_tool_policy:
            return None
        run = scope.run
        began = time.perf_counter()
        decision = await self._hooks.authorize_tool(run, tool)
        seconds = time.perf_counter() - began
        self._hooks.on_decision(
            DecisionMade(run.request_id, run.principal, "tool", tool.name, decision, seconds, tool.agent_id)
        )
        if decision.allowed:
            return None
        reason = f": {decision.reason}" if decision.reason else ""
        error = ToolRefusedError(
            f"the tool {tool.name} may not be called{reason}", source=f"tool {tool.name} of {tool.agent_name}"
        )
        self._announce(error, run)
        return error

    async def check(self, scope: RunScope, tool: ToolInfo, call_id: str) -> ToolGuardrailFunctionOutput:
        """What the SDK is to do with a call.

        Raises:
            ToolRefusedError: It is refused, and that is to end the run.
        """
        error = await self.refusal(scope, tool)
        if error is None:
            return ToolGuardrailFunctionOutput.allow()
        self._hooks.on_tool_end(ToolCall(scope.run, tool, call_id, 0.0, "refused"))
        if self.refused == "fail":
            scope.fatal = error
            raise error
        return ToolGuardrailFunctionOutput.reject_content(f"{error.message[0].upper()}{error.message[1:]}.")

    async def ask_unguarded(self, scope: RunScope, context: Any, agent: Any, tool: Any) -> None:
        """Ask about a call that came by no guard: of a tool that only just came, or of one that takes no guards.

        Raises:
            ToolRefusedError: It is refused; too late to tell the model, so that ends the run.
        """
        if _is_guarded(tool):
            return
        # What is no function, such as a shell, was kept from the model as a hosted tool, if it was refused then.
        origin = origin_of(tool) if isinstance(tool, FunctionTool) else ToolOrigin("hosted")
        info = tool_info(scope, getattr(tool, "name", "tool"), agent, origin)
        error = await self.refusal(scope, info)
        if error is not None:
            self._hooks.on_tool_end(ToolCall(scope.run, info, getattr(context, "tool_call_id", ""), 0.0, "refused"))
            scope.fatal = error
            raise error

    def began(self, scope: RunScope, context: Any, agent: Any, tool: Any) -> None:
        """A call was let through.

        Raises:
            MaxToolCallsError: It is one too many.
        """
        scope.tool_calls += 1
        if scope.tool_calls > self.max_calls:
            # An agent that is used as a tool tells its failure to the model that called it, which may go on.
            scope.fatal = MaxToolCallsError("the run called more tools than it may", hint="raise [runs] max_tool_calls")
            raise scope.fatal
        if isinstance(tool, FunctionTool) and scope.entry is not None:
            self._tool_binder.wrap_transient(tool, scope.entry)
        _listen_for_failure(tool)
        info = tool_info(scope, getattr(tool, "name", "tool"), agent, origin_of(tool))
        scope.calls[id(context)] = ActiveToolCall(context, info, time.perf_counter())

    def ended(self, scope: RunScope, context: Any, tool: Any) -> None:
        """A call has a result, which may be the words for its failure."""
        call = scope.calls.pop(id(context), None)
        if call is None:
            return
        seconds = time.perf_counter() - call.started
        limit = getattr(tool, "timeout_seconds", None)
        cause = vars(context).get(_FAILED)
        # The SDK tells a timeout to the model, and to nobody else.
        failed = cause is not None or (limit is not None and seconds >= limit)
        if failed and scope.fatal is None:  # what ends the run was announced when it happened
            self._tell_failure(scope.run, call.tool, cause, limit)
        self._end(scope, call, seconds, "error" if failed else "ok")

    def close(self, scope: RunScope, contexts: "set[int] | None" = None, failed: str | None = None) -> None:
        """Calls that never got a result, because the run was over.

        Args:
            scope: Whose calls.
            contexts: Which of them; all of them unless given.
            failed: The name of the tool whose failure ended the run; the others were cancelled.
        """
        for key in [key for key in scope.calls if contexts is None or key in contexts]:
            call = scope.calls.pop(key)
            outcome: Literal["error", "cancelled"] = "error" if _name(call) == failed else "cancelled"
            self._end(scope, call, time.perf_counter() - call.started, outcome)

    def hosted(self, scope: RunScope, agent: Any, name: str, call_id: str, *, failed: bool) -> None:
        """A model's server called a tool by itself; how long that took, it does not say."""
        if self._hooks.has_tool_observers:
            info = tool_info(scope, name, agent, ToolOrigin("hosted"))
            self._hooks.on_tool_end(ToolCall(scope.run, info, call_id, 0.0, "error" if failed else "ok"))

    def _tell_failure(self, run: RunContext, tool: ToolInfo, cause: Exception | None, limit: float | None) -> None:
        """A call failed, and the run goes on: its model was told, in words that say nothing of why."""
        how = "failed" if cause is not None else f"did not end within {limit:g} s"
        error = ToolError(
            f"the tool {tool.name} {how}, and the model was told", source=f"tool {tool.name} of {tool.agent_name}"
        )
        error.__cause__ = cause
        place = f" [{type(cause).__name__} at {place_of(cause)}]" if cause is not None else ""
        logger.warning("request %s: %s%s", run.request_id, error, place)
        self._announce(error, run)

    def _end(
        self,
        scope: RunScope,
        call: ActiveToolCall,
        seconds: float,
        outcome: Literal["ok", "error", "refused", "cancelled"],
    ) -> None:
        call_id = getattr(call.context, "tool_call_id", "")
        self._hooks.on_tool_end(ToolCall(scope.run, call.tool, call_id, seconds, outcome))


def tool_info(scope: RunScope, name: str, agent: Any, origin: ToolOrigin) -> ToolInfo:
    """A tool as policies see it: by the name under which the gateway offers it, whatever the agent calls it."""
    # Rules for a served agent hold wherever it is reached from.
    agent_id = scope.cross_agent.served_as(scope.run, agent) if scope.cross_agent is not None else scope.run.agent_id
    return ToolInfo(origin.name or name, origin.source, agent_id, agent.name, server=origin.server, open=origin.open)


class ToolGuard(ToolInputGuardrail[Any]):
    """Asks whether a call may be made. The same one serves every gateway in the process; the run says which it is."""

    def __init__(self, origin: ToolOrigin) -> None:
        super().__init__(self.run, name="agent_gateway")
        self._origin = origin

    async def run(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        position = POSITION.get()
        if position is None or (tools := position.scope.tools) is None:
            if self._origin.open:
                return ToolGuardrailFunctionOutput.allow()
            return ToolGuardrailFunctionOutput.reject_content(_NO_GATEWAY)
        scope, context = position.scope, data.context
        info = tool_info(scope, context.tool_name, data.agent, self._origin)
        verdict: ToolGuardrailFunctionOutput = await tools.check(scope, info, context.tool_call_id)
        return verdict


def governing(hooks: Hooks) -> Callable[[Any, ToolOrigin], None]:
    """Puts the guard on a function tool or on an MCP server, once, in front of the author's own guardrails.

    Where no plugin decides on tools, only those that need a policy's word get it: the rest costs nothing.
    """

    def govern(target: Any, origin: ToolOrigin) -> None:
        needed = hooks.has_tool_policy or not origin.open
        if needed and not _is_guarded(target):
            target.tool_input_guardrails = [ToolGuard(origin), *_guards(target)]

    return govern


def _guards(target: Any) -> list[Any]:
    return getattr(target, "tool_input_guardrails", None) or []


def _is_guarded(target: Any) -> bool:
    return any(isinstance(guard, ToolGuard) for guard in _guards(target))


def _listen_for_failure(tool: Any) -> None:
    """Hear of failures that the SDK turns into words for the model; nothing else tells of them."""
    invoker = getattr(tool, "on_invoke_tool", None)
    report = getattr(invoker, "_on_handled_error", None)
    if report is not None and not isinstance(report, _Noting):
        invoker._on_handled_error = _Noting(report)  # type: ignore[union-attr]


class _Noting:
    def __init__(self, report: Callable[..., None]) -> None:
        self._report = report

    def __call__(self, tool: Any, error: Exception, arguments: str, context: Any) -> None:
        vars(context)[_FAILED] = error
        self._report(tool, error, arguments, context)


def _name(call: ActiveToolCall) -> str:
    name: str = getattr(call.context, "tool_name", "")
    return name
