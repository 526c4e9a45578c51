"""Authorizes every tool call with the plugins, and reports the outcome of each call.

An input guardrail, installed once on each tool object and each MCP server of an agent, authorizes the call; run hooks
measure it. Neither changes a tool's output or error message, which stay those of the SDK and the author.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any, Literal

from agents import FunctionTool
from agents.tool_guardrails import ToolGuardrailFunctionOutput, ToolInputGuardrail, ToolInputGuardrailData

from gateway_core.catalog.tool_binding import ToolBinder
from gateway_core.errors import GatewayError, MaxToolCallsError, ToolError, ToolRefusedError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.runs.error_mapping import exception_text, place_of
from gateway_core.runs.leftover_files import LeftoverFiles
from gateway_core.runs.run_scope import POSITION, TOOL_CALL, ActiveToolCall, RunScope
from gateway_core.sdk import compat
from gateway_core.tools.origin import ToolOrigin, origin_of
from gateway_core.types import DecisionMade, RunContext, ToolCall, ToolInfo

logger = logging.getLogger(__name__)

_FAILED = "_agent_gateway_failed"
_NO_GATEWAY = "This tool may only be called in a run of the gateway."


class ToolAuthorization:
    """Authorizes and measures the tool calls of one gateway.

    Args:
        hooks: The hook `authorize_tool` decides on a call, and `on_tool_end` receives its outcome.
        announce: Reports a run's error to every plugin.
        tool_binder: Binds tools to agents that are created during a run.
        refused: The handling of a refused call: return an error to the model ("tell"), or fail the run ("fail").
        max_calls: Maximum number of tool calls in one run.
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
        self.files: LeftoverFiles | None = None
        """Finds the descriptors that tools leave open; `None` unless the gateway owns its process."""

    def adopt(self, scope: RunScope, agent: Any) -> None:
        """Bind the tools of an agent that is about to run, unless that was done when it was loaded."""
        if scope.entry is not None:
            self._tool_binder.bind_at_run(agent, scope.entry)

    def guard(self, tools: Iterable[Any]) -> None:
        """Put the guard on function tools that the SDK creates for a run, such as those of a sandbox."""
        self._tool_binder.guard(tools)

    async def refusal(self, scope: RunScope, tool: ToolInfo) -> ToolRefusedError | None:
        """Authorize a tool with the plugins. Reports the decision, and a refusal as an error, which it returns."""
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
        """Authorize a call, and return the guardrail output for the SDK.

        Raises:
            ToolRefusedError: The call is refused, and `refused` is "fail".
        """
        error = await self.refusal(scope, tool)
        if error is None:
            return ToolGuardrailFunctionOutput.allow()
        self._hooks.on_tool_end(ToolCall(scope.run, tool, call_id, 0.0, "refused"))
        scope.failed_calls.add(call_id)
        if self.refused == "fail":
            scope.fatal = error
            raise error
        return ToolGuardrailFunctionOutput.reject_content(f"{error.message[0].upper()}{error.message[1:]}.")

    async def check_unguarded(self, scope: RunScope, context: Any, agent: Any, tool: Any) -> None:
        """Authorize a call of a tool without a guard: one that was just added, or that does not support guardrails.

        Raises:
            ToolRefusedError: The call is refused. This ends the run, because the model can no longer be informed.
        """
        if _is_guarded(tool) and not _has_prefixed_names(agent, origin_of(tool)):
            return
        info = tool_info(scope, getattr(tool, "name", "tool"), agent, origin_of(tool))
        error = await self.refusal(scope, info)
        if error is not None:
            self._hooks.on_tool_end(ToolCall(scope.run, info, getattr(context, "tool_call_id", ""), 0.0, "refused"))
            scope.fatal = error
            raise error

    def began(self, scope: RunScope, context: Any, agent: Any, tool: Any) -> None:
        """Record that an authorized call started.

        Raises:
            MaxToolCallsError: The run has reached its limit of tool calls.
        """
        scope.tool_calls += 1
        if scope.tool_calls > self.max_calls:
            # `fatal` ends the whole run: an agent used as a tool would only report the error to the calling model.
            scope.fatal = MaxToolCallsError(
                f"the run exceeded max_tool_calls ({self.max_calls})", hint="raise [runs] max_tool_calls"
            )
            raise scope.fatal
        if isinstance(tool, FunctionTool) and scope.entry is not None:
            self._tool_binder.wrap_transient(tool, scope.entry)
        _record_failures(tool)
        compat.wrap_invocation(tool, lambda call: call if isinstance(call, _IdentifiedCall) else _IdentifiedCall(call))
        info = tool_info(scope, getattr(tool, "name", "tool"), agent, origin_of(tool))
        scope.calls[id(context)] = call = ActiveToolCall(context, info, time.perf_counter())
        if self.files is not None:
            self.files.began(scope, call)

    def ended(self, scope: RunScope, context: Any, tool: Any) -> None:
        """Record that a call has a result, which may be an error message."""
        call = scope.calls.pop(id(context), None)
        if call is None:
            return
        if self.files is not None:
            self.files.ended(scope, call)
        seconds = time.perf_counter() - call.started
        limit = getattr(tool, "timeout_seconds", None)
        cause = vars(context).get(_FAILED)
        # The SDK reports a timeout only to the model.
        failed = cause is not None or (limit is not None and seconds >= limit)
        if failed:
            call_id = getattr(context, "tool_call_id", "")
            scope.failed_calls.add(call_id)
            if cause is not None and scope.tool_errors is not None:
                scope.tool_errors[call_id] = exception_text(cause)
        if failed and scope.fatal is None:  # a fatal error is already announced
            self._report_failure(scope.run, call.tool, cause, limit)
        self._end(scope, call, seconds, "error" if failed else "ok")

    def close(self, scope: RunScope, contexts: "set[int] | None" = None, failed: str | None = None) -> None:
        """Record the end of calls that have no result because the run has ended.

        Args:
            scope: The scope of the calls.
            contexts: The `id()`s of the calls' contexts; `None` for all calls.
            failed: The name of the tool whose failure ended the run; the other calls are recorded as cancelled.
        """
        for key in [key for key in scope.calls if contexts is None or key in contexts]:
            call = scope.calls.pop(key)
            outcome: Literal["error", "cancelled"] = "error" if _name(call) == failed else "cancelled"
            self._end(scope, call, time.perf_counter() - call.started, outcome)

    def hosted(self, scope: RunScope, agent: Any, name: str, call_id: str, *, failed: bool) -> None:
        """Record a call of a hosted tool. Its duration is unknown and reported as 0."""
        if self._hooks.has_tool_observers:
            info = tool_info(scope, name, agent, ToolOrigin("hosted"))
            self._hooks.on_tool_end(ToolCall(scope.run, info, call_id, 0.0, "error" if failed else "ok"))

    def _report_failure(self, run: RunContext, tool: ToolInfo, cause: Exception | None, limit: float | None) -> None:
        """Report a failed call of a run that continues; its model has received an error message without the cause."""
        how = "failed" if cause is not None else f"timed out after {limit:g} s"
        error = ToolError(
            f"the tool {tool.name} {how}; the model received an error message",
            source=f"tool {tool.name} of {tool.agent_name}",
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
    """Return the description of a tool for policies. Its name is the gateway's, even if the agent renames the tool."""
    # Policies for a served agent apply in every run that reaches it.
    agent_id = scope.cross_agent.served_as(scope.run, agent) if scope.cross_agent is not None else scope.run.agent_id
    return ToolInfo(origin.name or name, origin.source, agent_id, agent.name, server=origin.server, open=origin.open)


class ToolGuard(ToolInputGuardrail[Any]):
    """The input guardrail that authorizes calls. All gateways in the process share it; the run determines which."""

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
        if _has_prefixed_names(data.agent, self._origin):
            # A server's guard does not see the tool, whose name is another one here; `check_unguarded` does.
            return ToolGuardrailFunctionOutput.allow()
        info = tool_info(scope, context.tool_name, data.agent, self._origin)
        verdict: ToolGuardrailFunctionOutput = await tools.check(scope, info, context.tool_call_id)
        return verdict


def governing(hooks: Hooks) -> Callable[[Any, ToolOrigin], None]:
    """Return a function that installs the guard on a function tool or an MCP server, before the author's guardrails.

    If no plugin has a tool policy, only tools that are not open get the guard, so that other calls have no overhead.
    """

    def govern(target: Any, origin: ToolOrigin) -> None:
        needed = hooks.has_tool_policy or not origin.open
        if needed and not _is_guarded(target):
            target.tool_input_guardrails = [ToolGuard(origin), *_guards(target)]

    return govern


def _has_prefixed_names(agent: Any, origin: ToolOrigin) -> bool:
    """Whether an agent gives the tools of its MCP servers names with the server in them, which policies do not know."""
    config = getattr(agent, "mcp_config", None) or {}
    return origin.source == "mcp" and bool(config.get("include_server_in_tool_names"))


def _guards(target: Any) -> list[Any]:
    return getattr(target, "tool_input_guardrails", None) or []


def _is_guarded(target: Any) -> bool:
    return any(isinstance(guard, ToolGuard) for guard in _guards(target))


def _record_failures(tool: Any) -> None:
    """Record exceptions that the SDK converts to an error message for the model and does not report otherwise."""
    compat.wrap_handled_error(
        tool, lambda report: report if isinstance(report, _FailureRecorder) else _FailureRecorder(report)
    )


class _FailureRecorder:
    def __init__(self, report: Callable[..., None]) -> None:
        self._report = report

    def __call__(self, tool: Any, error: Exception, arguments: str, context: Any) -> None:
        vars(context)[_FAILED] = error
        self._report(tool, error, arguments, context)


class _IdentifiedCall:
    """Sets `TOOL_CALL` in the context of a tool's own code, which threads and tasks inherit."""

    def __init__(self, call: Callable[..., Any]) -> None:
        update_wrapper(self, call)  # the SDK reads attributes of the function
        self._call = call

    async def __call__(self, context: Any, arguments: str) -> Any:
        position = POSITION.get()
        active = position.scope.calls.get(id(context)) if position is not None else None
        token = TOOL_CALL.set(active.tool if active is not None else None)
        try:
            return await self._call(context, arguments)
        finally:
            TOOL_CALL.reset(token)


def _name(call: ActiveToolCall) -> str:
    name: str = getattr(call.context, "tool_name", "")
    return name
