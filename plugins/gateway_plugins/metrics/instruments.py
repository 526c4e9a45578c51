"""The instruments: what is counted and measured, under which names, and with which labels.

Names are OpenTelemetry's where it has one (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ and
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/), else they begin with `agent_gateway.`. It exports
nothing, and no label holds what a client chose.
"""

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation
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
from gateway_plugins.metrics.labels import UNKNOWN, FewValues

# Buckets as the conventions advise; agents take longer than web pages, so some of them go on.
_HTTP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300, 600]
_OPERATION_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 300, 600]
_FIRST_SECONDS = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60]
_PER_TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
_TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_UPSTREAM = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
_OWN = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "agent_gateway"}


class Instruments:
    """The instruments of one gateway.

    Args:
        meter: Makes them.
        gateway: Whose catalog and measurements are told.
    """

    def __init__(self, meter: Meter, gateway: Gateway) -> None:
        self._gateway = gateway
        self._recorder = Recorder()
        self._record = self._recorder.record
        self._model, self._tool = FewValues(200), FewValues(500)
        self._code, self._source, self._task = FewValues(200), FewValues(50), FewValues(50)
        self.active_requests = 0

        self._http_seconds = meter.create_histogram(
            "http.server.request.duration", "s", "Requests.", explicit_bucket_boundaries_advisory=_HTTP_SECONDS
        )
        self._run_seconds = meter.create_histogram(
            gen_ai_metrics.GEN_AI_SERVER_REQUEST_DURATION,
            "s",
            "Runs, from their start to their end.",
            explicit_bucket_boundaries_advisory=_OPERATION_SECONDS,
        )
        self._first_token = meter.create_histogram(
            gen_ai_metrics.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
            "s",
            "From a run's start to the first piece of its answer.",
            explicit_bucket_boundaries_advisory=_FIRST_SECONDS,
        )
        self._model_seconds = meter.create_histogram(
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION,
            "s",
            "Calls of models.",
            explicit_bucket_boundaries_advisory=_OPERATION_SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
            "s",
            "From a model's call to the first piece of its answer, where that is streamed.",
            explicit_bucket_boundaries_advisory=_FIRST_SECONDS,
        )
        self._per_token = meter.create_histogram(
            gen_ai_metrics.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
            "s",
            "Between a model's output tokens after the first one, where they are streamed.",
            explicit_bucket_boundaries_advisory=_PER_TOKEN_SECONDS,
        )
        self._tokens = meter.create_histogram(
            gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE,
            "{token}",
            "Tokens of each model call, as the upstream counted them.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._tool_seconds = meter.create_histogram(
            "agent_gateway.tool.duration",
            "s",
            "Tool calls.",
            explicit_bucket_boundaries_advisory=_OPERATION_SECONDS,
        )
        self._runs = Count(meter, "agent_gateway.runs", "{run}", "Runs that ended.", "agent", "outcome")
        self._errors = Count(meter, "agent_gateway.errors", "{error}", "Failures of every stage.", "stage", "code")
        self._load_failures = Count(
            meter, "agent_gateway.load.failures", "{failure}", "Agents that could not be loaded.", "kind", "agent"
        )
        self._decisions = Count(
            meter,
            "agent_gateway.decisions",
            "{decision}",
            "Decisions that took effect.",
            *("kind", "source", "outcome"),
        )
        self._tasks = Count(
            meter,
            "agent_gateway.background_tasks",
            "{task}",
            "What chat UIs asked beside a chat.",
            *("kind", "outcome"),
        )
        self._keep_alives = Count(
            meter, "agent_gateway.keep_alives", "{comment}", "Comments sent into silent streams.", "agent"
        )
        self._left = Count(
            meter, "agent_gateway.disconnects", "{client}", "Clients that left before their answer's end.", "agent"
        )

        self._observe(meter)

    def request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """A request was answered, or its client has left."""
        labels: dict[str, str | int] = {
            "http.request.method": method if method in _METHODS else "_OTHER",
            "http.response.status_code": status,
            "http.route": route or UNKNOWN,
        }
        self._record(self._http_seconds, seconds, labels)

    def run(self, run: RunContext, outcome: Outcome) -> None:
        """A run ended."""
        how = "cancelled" if outcome.cancelled else "error" if outcome.error else "ok"
        agent = self._agent(run.agent_id)
        if outcome.client_left:
            self._left.add(agent)
        if outcome.keep_alives:
            self._keep_alives.add(agent, count=outcome.keep_alives)
        if run.task is not None:
            # The agent has no part in it.
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
        """A model's call ended."""
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
        """A tool's call ended."""
        labels = {"tool": self._tool(call.tool.name), "source": call.tool.source, "outcome": call.outcome}
        self._record(self._tool_seconds, call.seconds, labels)

    def decision(self, made: DecisionMade) -> None:
        """A decision took effect."""
        outcome = "allowed" if made.decision.allowed else "refused"
        self._decisions.add(made.kind, self._source(made.decision.source), outcome)

    def error(self, error: GatewayError) -> None:
        """Something failed."""
        code = self._code(error.code)
        self._errors.add(error.stage.value, code)
        if error.stage in ("load", "discover") and error.request_id is None:
            # Of the first load no catalog tells yet. Its names are those of files, and no client's.
            self._load_failures.add(code, error.agent_id or UNKNOWN)

    def measure(self, meter: Meter, measurements: Iterable[Measurement]) -> None:
        """Export measurements of the core and of plugins, of these names."""
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
            for state, count in agent_states(self._gateway.catalog).items():
                yield Observation(count, {"state": state})

        def builds(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self._gateway.catalog.generation)

        def build_seconds(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self._gateway.catalog.seconds)

        def active_requests(_: CallbackOptions) -> Iterable[Observation]:
            yield Observation(self.active_requests)

        meter.create_observable_gauge(
            "agent_gateway.agents", [flushing(self._recorder, agents)], "{agent}", "Agents, by state."
        )
        meter.create_observable_counter(
            "agent_gateway.catalog.builds", [builds], "{build}", "Catalogs that were made: one at start, one a reload."
        )
        meter.create_observable_gauge(
            "agent_gateway.catalog.build.duration", [build_seconds], "s", "How long the last catalog took to make."
        )
        meter.create_observable_up_down_counter(
            "http.server.active_requests", [active_requests], "{request}", "Requests that are on."
        )


def agent_states(catalog: Catalog) -> dict[str, int]:
    """How many agents are well, serve an older version because the newest is broken, and are broken."""
    stale = sum(agent_id in catalog.broken for agent_id in catalog.agents)
    return {"ok": len(catalog.agents) - stale, "stale": stale, "broken": len(catalog.broken) - stale}
