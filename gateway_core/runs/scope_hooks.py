"""The hooks that the gateway adds to each SDK run: usage, model calls, tool calls, authorization of further agents."""

from typing import Any

from agents import RunHooks

from gateway_core.runs.call_details import HOSTED_CALLS, call_id, call_name, get
from gateway_core.runs.client_tools import ClientFunctionTool
from gateway_core.runs.error_mapping import failed_tool
from gateway_core.runs.run_scope import POSITION, RunScope
from gateway_core.types import Usage


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
        self.last: tuple[Any, Any] | None = None
        """The agent and the response of the last model call that ended."""
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
        self.last = agent, response
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
            position.requested_model = self._model or agent.model
        # The agent's own hooks, or a tool, may have added tools to it since it started.
        adopt(self._scope, agent)
        if self._scope.models is not None:
            self._scope.models.began(self, agent.name, self._model or agent.model)
            self.awaits_first_chunk = True
        await self._inner.on_llm_start(context, agent, system_prompt, input_items)

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        await permit(self._scope, agent)
        # Before the SDK reads its tools: a handoff may have just created the agent.
        adopt(self._scope, agent)
        await self._inner.on_agent_start(context, agent)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        await self._inner.on_agent_end(context, agent, output)

    async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
        await self._inner.on_handoff(context, from_agent, to_agent)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        # A client's tool ran in the client.
        if self._scope.tools is not None and not isinstance(tool, ClientFunctionTool):
            await self._scope.tools.check_unguarded(self._scope, context, agent, tool)
            self._scope.tools.began(self._scope, context, agent, tool)
            self._calls.add(id(context))
        await self._inner.on_tool_start(context, agent, tool)

    async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
        if self._scope.tools is not None:
            self._scope.tools.ended(self._scope, context, tool)
            self._calls.discard(id(context))
        await self._inner.on_tool_end(context, agent, tool, result)


def adopt(scope: RunScope, agent: Any) -> None:
    """Bind the tools of an agent that a run reaches."""
    if scope.tools is not None:
        scope.tools.adopt(scope, agent)


async def permit(scope: RunScope, agent: Any) -> None:
    """Authorize the caller of a run for an agent that it reaches."""
    if scope.cross_agent is not None:
        await scope.cross_agent.permit(scope, agent)
