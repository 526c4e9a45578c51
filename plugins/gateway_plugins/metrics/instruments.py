"""Defines the metric instruments, with their names and labels.

Names follow the OpenTelemetry conventions where they exist
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ and
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/); other names begin with `agent_gateway.`. Label values
are never chosen by clients.
"""

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from gateway_core import (
    Catalog,
    DecisionMade,
    Gateway,
    GatewayError,
    Measurement,
    ModelCall,
    Outcome,
    RunContext,
    ToolCall,
)
from gateway_plugins.metrics.batching import Count, Recorder, flushing
from gateway_plugins.metrics.labels import UNKNOWN, CardinalityLimit

# Buckets recommended by the conventions, extended because agents take longer than web pages.
_HTTP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300, 600]
_OPERATION_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 300, 600]
_FIRST_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60]
_PER_TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
_TOKENS: list[float] = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_UPSTREAM = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
_OWN = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "agent_gateway"}


class Instruments:
    """The instruments of one gateway.

    Args:
        meter: Creates the instruments.
        gateway: Supplies the catalog and the measurements.
    """

    def __init__(self, meter: Meter, gateway: Gateway) -> None:
        self._gateway = gateway
        self._recorder = Recorder()
        self._record = self._recorder.record
        self._model, self._tool = CardinalityLimit(200), CardinalityLimit(500)
        self._code, self._source, self._task = CardinalityLimit(200), CardinalityLimit(50), CardinalityLimit(50)
        self.active_requests = 0

        def histogram(name: str, description: str, buckets: list[float], unit: str = "s") -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

        name, about = "http.server.request.duration", "Duration of HTTP requests."
        self._http_seconds = histogram(name, about, _HTTP_SECONDS)
        name, about = gen_ai_metrics.GEN_AI_SERVER_REQUEST_DURATION, "Duration of runs, including tools."
        self._run_seconds = histogram(name, about, _OPERATION_SECONDS)
        about = "Time from the start of a run to the first piece of its answer or reasoning."
        self._first_token = histogram(gen_ai_metrics.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, about, _FIRST_SECONDS)
        name, about = gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, "Duration of model calls."
        self._model_seconds = histogram(name, about, _OPERATION_SECONDS)
        about = "Time from the start of a streamed model call to its first chunk."
        self._first_chunk = histogram(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, about, _FIRST_SECONDS)
        about = "Time per output token after the first one, for streamed model calls."
        self._per_token = histogram(gen_ai_metrics.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, about, _PER_TOKEN_SECONDS)
        about = "Tokens per model call, as reported by the upstream."
        self._tokens = histogram(gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, about, _TOKENS, "{token}")
        self._tool_seconds = histogram("agent_gateway.tool.duration", "Duration of tool calls.", _OPERATION_SECONDS)

        self._runs = Count(meter, "agent_gateway.runs", "{run}", "Finished runs.", "agent", "outcome")
        self._errors = Count(meter, "agent_gateway.errors", "{error}", "Errors, by stage and code.", "stage", "code")
        self._load_failures = Count(
            meter, "agent_gateway.load.failures", "{failure}", "Failed attempts to load an agent.", "kind", "agent"
        )
        self._decisions = Count(
            meter, "agent_gateway.decisions", "{decision}", "Policy decisions.", "kind", "source", "outcome"
        )
        about = "Background requests of chat UIs, such as titles."
        self._tasks = Count(meter, "agent_gateway.background_tasks", "{task}", about, "kind", "outcome")
        about = "Keep-alive comments sent in idle streams."
        self._keep_alives = Count(meter, "agent_gateway.keep_alives", "{comment}", about, "agent")
        about = "Clients that disconnected before the response was complete."
        self._disconnects = Count(meter, "agent_gateway.disconnects", "{client}", about, "agent")
        self._observe(meter)

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Records a completed request, or one whose client disconnected."""
        labels: dict[str, str | int] = {
            "http.request.method": method if method in _METHODS else "_OTHER",
            "http.response.status_code": status,
            "http.route": route or UNKNOWN,
        }
        self._record(self._http_seconds, seconds, labels)

    def run(self, run: RunContext, outcome: Outcome) -> None:
        """Records a finished run."""
        how = "cancelled" if outcome.cancelled else "error" if outcome.error else "ok"
        agent = self._agent(run.agent_id)
        if outcome.client_left:
            self._disconnects.add(agent)
        if outcome.keep_alives:
            self._keep_alives.add(agent, count=outcome.keep_alives)
        if run.task is not None:
            # Background tasks do not run the agent, so they do not count as its runs.
            self._tasks.add(self._task(run.task), how)
            return
        labels = {**_OWN, "gen_ai.request.model": agent}
        self._runs.add(agent, how)
        if outcome.first_token_seconds is not None:
            self._record(self._first_token, outcome.first_token_seconds, labels)
        if how != "ok":
            labels = {**labels, "error.type": self._code(outcome.error.code) if outcome.error else how}
        self._record(self._run_seconds, outcome.seconds, labels)

    def model_call(self, call: ModelCall) -> None:
        """Records a finished model call."""
        labels = {
            **_UPSTREAM,
            "gen_ai.agent.name": self._agent(call.run.agent_id),
            "gen_ai.request.model": self._model(call.model or "_default"),
        }
        used = call.usage
        if used.input_tokens:
            self._record(self._tokens, used.input_tokens, {**labels, "gen_ai.token.type": "input"})
        if used.output_tokens:
            self._record(self._tokens, used.output_tokens, {**labels, "gen_ai.token.type": "output"})
        first = call.first_chunk_seconds
        if first is not None:
            self._record(self._first_chunk, first, labels)
            if used.output_tokens > 1:
                self._record(self._per_token, (call.seconds - first) / (used.output_tokens - 1), labels)
        if call.outcome != "ok":
            labels = {**labels, "error.type": call.outcome}
        self._record(self._model_seconds, call.seconds, labels)

    def tool_call(self, call: ToolCall) -> None:
        """Records a finished tool call."""
        labels = {"tool": self._tool(call.tool.name), "source": call.tool.source, "outcome": call.outcome}
        self._record(self._tool_seconds, call.seconds, labels)

    def decision(self, made: DecisionMade) -> None:
        """Records a policy decision."""
        outcome = "allowed" if made.decision.allowed else "refused"
        self._decisions.add(made.kind, self._source(made.decision.source), outcome)

    def error(self, error: GatewayError) -> None:
        """Records an error."""
        code = self._code(error.code)
        self._errors.add(error.stage.value, code)
        if error.stage in ("load", "discover") and error.request_id is None:
            # During the first load, the catalog is empty. These ids come from file names, not from clients.
            self._load_failures.add(code, error.agent_id or UNKNOWN)

    def measure(self, meter: Meter, measurements: Iterable[Measurement]) -> None:
        """Creates instruments for the measurements of the core and of plugins."""
        for measured in {each.name: each for each in measurements}.values():
            create = meter.create_observable_counter if measured.total else meter.create_observable_gauge
            create(measured.name, [self._latest(measured.name)], measured.unit, measured.description)

    def _latest(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for each in self._gateway.measurements():
                if each.name == name:
                    yield Observation(each.value, each.labels)

        return observe

    def _agent(self, agent_id: str | None) -> str:
        catalog = self._gateway.catalog
        known = agent_id is not None and (agent_id in catalog.agents or agent_id in catalog.broken)
        return agent_id if known and agent_id is not None else UNKNOWN

    def _observe(self, meter: Meter) -> None:
        def agents() -> Iterable[Observation]:
            for state, number in agent_states(self._gateway.catalog).items():
                yield Observation(number, {"state": state})

        def one(value: Callable[[], float]) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
            return [lambda _: [Observation(value())]]

        name, about = "agent_gateway.agents", "Number of agents, by state."
        meter.create_observable_gauge(name, [flushing(self._recorder, agents)], "{agent}", about)
        name, about = "agent_gateway.catalog.builds", "Catalog builds: one at startup, one per reload."
        meter.create_observable_counter(name, one(lambda: self._gateway.catalog.generation), "{build}", about)
        name, about = "agent_gateway.catalog.build.duration", "Duration of the last catalog build."
        meter.create_observable_gauge(name, one(lambda: self._gateway.catalog.seconds), "s", about)
        name, about = "http.server.active_requests", "Requests in progress."
        meter.create_observable_up_down_counter(name, one(lambda: self.active_requests), "{request}", about)


def agent_states(catalog: Catalog) -> dict[str, int]:
    """Returns the number of agents by state: ok, stale (serving an older version) and broken."""
    failures = [failure.id for agent in catalog.agents.values() if (failure := catalog.failure_of(agent))]
    broken = len(catalog.broken) - len({*failures})
    return {"ok": len(catalog.agents) - len(failures), "stale": len(failures), "broken": broken}
