"""Immutable data types that the parts of the gateway exchange.

The module performs no I/O and imports neither the SDK nor a web framework. The events of a run are in
`runs/run_events.py`.
"""

import enum
import ipaddress
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, field, frozen

from gateway_core.errors import GatewayError

DEFAULT_NAMESPACE = "default"


@frozen
class AgentEntry:
    """A discovered agent, not yet imported."""

    id: str
    """The model name that clients use, such as `SampleAgent` or `labs/Research`."""
    source: str
    """The origin, for display: a file path or an entry point."""
    digest: str
    """A digest of everything that the agent consists of. A reload reuses the served agent while it is unchanged."""
    load: Callable[[], object] = field(eq=False, repr=False)
    """Imports the agent. Returns the module, or the object of an entry point. Blocking; called in a worker thread."""
    unload: Callable[[], None] | None = field(default=None, eq=False, repr=False)
    """Called after the agent was replaced and the last run of the replaced version has ended."""
    description: str = ""
    folder: Path | None = None
    """The agent's own folder, if any, in which its requirements are declared."""
    module: str | None = None
    """The name of its module, if that is part of an installed package."""
    probe_command: tuple[str, ...] = field(default=(), eq=False, repr=False)
    """The command that imports the agent in another process and exits with `import_probe.SURVIVED`. Empty: no probe."""

    @property
    def namespace(self) -> str:
        """The part of the id before the last `/`, or `default` for a top-level agent."""
        return self.id.rpartition("/")[0] or DEFAULT_NAMESPACE


@frozen
class ServedAgent:
    """A loaded agent with its tools bound, ready to run."""

    entry: AgentEntry
    runnable: Any = field(repr=False)
    """An instance of one of the classes in `gateway_core.catalog.runnables`. Lower layers treat it as opaque."""
    display_name: str
    description: str = ""
    model: str | None = None
    """The model that the module sets in `__gateway__`, used by its agents that set no model."""
    memory: bool = False
    """Whether the module enables chat memory: `__gateway__ = {"memory": "session"}`."""
    client_tools: Literal["offer", "ignore"] | None = None
    """Whether the module offers the client's tools to the agent: `__gateway__ = {"client_tools": "offer"}`."""
    meta: Mapping[str, Any] = Factory(dict)
    """Metadata for chat UIs, such as icon and suggested prompts, by Open WebUI's names."""
    structured: bool = False
    """Whether its answer has an output type, so that the text is JSON."""
    warnings: tuple[str, ...] = ()
    """Warnings for the operator about an agent that works."""
    export: str = ""
    """The export of the module that is served, such as `agent`, `build_agent()` or `main()`."""
    loaded_at: float = Factory(time.time)
    """Seconds since the epoch."""

    @property
    def id(self) -> str:
        """The id of the entry."""
        return self.entry.id


@frozen
class BrokenAgent:
    """A discovered agent that failed to load."""

    id: str
    source: str
    error: GatewayError
    digest: str = ""
    """The digest of the version that failed. The gateway does not load the same digest again."""

    def diagnosis(self) -> dict[str, Any]:
        """Describe the failure as JSON for operators: kind, message, file, line, source line and hint."""
        return {
            "kind": self.error.code,
            "message": self.error.message,
            "file": self.error.source,
            "line": getattr(self.error, "line", None),
            "source_line": getattr(self.error, "source_line", None),
            "hint": self.error.hint,
        }


@frozen
class Catalog:
    """A snapshot of all agents. A reload creates a new catalog; a request uses the same catalog until it ends."""

    agents: Mapping[str, ServedAgent] = Factory(dict)
    """By id, in the order of discovery."""
    broken: Mapping[str, BrokenAgent] = Factory(dict)
    """Agents whose latest version failed to load. One that is also in `agents` serves its last working version."""
    generation: int = 0
    """The number of the catalog, from 1; 0 while the gateway starts."""
    seconds: float = field(default=0.0, eq=False)
    """Build time in seconds."""
    loading: Mapping[str, AgentEntry] = Factory(dict)
    """New agents that have not been loaded yet, by id: at the start all of them."""
    _ids: Mapping[str, str] = field(init=False, repr=False, eq=False)

    @_ids.default
    def _fold_ids(self) -> Mapping[str, str]:
        return {agent_id.casefold(): agent_id for agent_id in (*self.loading, *self.broken, *self.agents)}

    def failure_of(self, served: ServedAgent) -> BrokenAgent | None:
        """Return the failure of a newer version of a served agent, or of the module that it is one of several of."""
        for agent_id in (served.id, served.entry.namespace):
            failure = self.broken.get(agent_id)
            if failure is not None and failure.source == served.entry.source:
                return failure
        return None

    def resolve(self, name: str) -> str | None:
        """Resolve a model name to an id. Case-insensitive. The prefix `default/` is optional for top-level agents."""
        folded = name.casefold()
        found = self._ids.get(folded) or self._ids.get(folded.removeprefix(f"{DEFAULT_NAMESPACE}/"))
        # `default/labs/Research` matches no agent: the default namespace contains top-level agents only.
        return None if found and "/" in found and folded != found.casefold() else found


@frozen
class Principal:
    """The authenticated caller of a request."""

    id: str
    admin: bool = False
    key: str | None = None
    """The id of the API key, which is not secret. `None` without a key."""


@frozen
class Decision:
    """A policy decision, with the rule that it is based on."""

    allowed: bool
    source: str
    """The level of the policy that made the decision, such as `key` or `namespace`."""
    pattern: str | None = None
    reason: str | None = None
    override: str | None = None
    """The id of the override that applied, if any."""


@frozen
class DecisionMade:
    """A decision that took effect. An evaluation without effect, such as for a list of models, does not produce one."""

    request_id: str
    principal: Principal
    kind: str
    """The kind of the subject: `agent`, `tool`, `module` or `admin`."""
    subject: str
    """An agent id, a tool name, a module id or the path of an admin page."""
    decision: Decision
    seconds: float
    """Duration of the evaluation."""
    agent_id: str | None = None
    """For a tool: the id of the agent that called it."""


@frozen
class Check:
    """The result of a readiness check."""

    name: str
    ok: bool
    needed: bool = True
    """Whether the gateway is not ready while the check fails."""


class Severity(enum.IntEnum):
    """The severity of a finding. The value is the exit status of `agent-gateway audit`."""

    INFO = 0
    LOW = 10
    MEDIUM = 20
    HIGH = 30
    CRITICAL = 40


@frozen
class Finding:
    """A problem that an operator should know, found by `agent-gateway audit`."""

    severity: Severity
    check: str
    """The name of the check, such as `key_expired`. Operators filter by it."""
    subject: str
    """The table of the settings, the file or the package with the problem."""
    message: str
    hint: str | None = None
    """Instructions to fix the problem."""

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON-serializable values."""
        return {
            "severity": self.severity.name.lower(),
            "check": self.check,
            "subject": self.subject,
            "message": self.message,
            "hint": self.hint,
        }


@frozen
class AuditContext:
    """The configuration that `agent-gateway audit` checks."""

    tables: Mapping[str, Any] = field(repr=False)
    """All settings, merged, with values as written. Tables of plugins are not validated, and can contain secrets."""
    config_file: Path | None
    """The `gateway.toml`; `None` if it does not exist."""
    state_folder: Path | None
    now: float
    """Seconds since the epoch."""
    unused_days: float = 90.0
    """Keys and rules without use in this period are reported."""
    expiring_days: float = 7.0
    """Keys that expire within this period are reported."""

    @property
    def exposed(self) -> bool:
        """Whether other hosts can reach the gateway."""
        host = self.tables["server"]["host"]
        try:
            return not ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return bool(host != "localhost")


@frozen
class RunContext:
    """The context of a run: the facts that are known before the run starts."""

    request_id: str
    principal: Principal
    agent_id: str
    client: str | None = None
    """The client's name for itself, if it sends one."""
    started: float = Factory(time.time)
    """Seconds since the epoch."""
    session_id: str | None = None
    """The id of the chat that the request belongs to, if the client sends one. It is unique only per principal."""
    task: str | None = None
    """The kind of a background task of a chat UI, such as `title`. Such a run does not involve the agent."""


@frozen
class AnswerFormat:
    """An output format: JSON by a schema."""

    name: str
    schema: dict[str, Any] = field(repr=False)
    strict: bool
    """Whether the model must keep to the schema, which must then have no optional properties."""


@frozen
class ClientTool:
    """A function tool that runs in the client."""

    name: str
    description: str
    parameters: dict[str, Any] = field(repr=False)
    """JSON Schema of the arguments, as the client sent it."""
    strict: bool = False


@frozen
class ClientToolOffer:
    """The tools of a request that are offered to its agent."""

    tools: tuple[ClientTool, ...] = ()
    choice: str | None = None
    """`required`, or the name of the tool that the model must call."""
    parallel: bool | None = None
    """Whether the model may call several tools in one turn; `None` if the client does not say."""


@frozen
class BackgroundTask:
    """A request that a chat UI makes in the background, such as one for the title of a chat."""

    kind: str
    """The kind of task, such as `title` or `tags`."""
    model: str | None = None
    """The model that answers it. `None`: the default model of the default upstream."""
    answer: str | None = None
    """The answer when no model is available."""
    local: bool = False
    """Whether to answer without a model call."""


ToolSource = Literal["sdk-native", "gateway", "mcp", "hosted"]


@frozen
class ToolInfo:
    """The facts about a tool that policies evaluate."""

    name: str
    source: ToolSource
    agent_id: str
    """The served agent that calls the tool, or else the one whose run makes the call."""
    agent_name: str
    """The SDK agent that calls the tool: the served agent, a handoff target or an agent used as a tool."""
    server: str | None = None
    """For an MCP tool: the server's name."""
    open: bool = True
    """Whether the call is allowed when every policy abstains."""


@frozen
class ToolCall:
    """A finished tool call."""

    run: RunContext
    tool: ToolInfo
    call_id: str
    seconds: float
    outcome: Literal["ok", "error", "refused", "cancelled"]


@frozen
class Usage:
    """Token counts as the upstream reported them, summed over all model calls of a run. Never estimated."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Sum of input and output tokens."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@frozen
class Outcome:
    """The outcome of a run."""

    seconds: float
    usage: Usage
    error: GatewayError | None = None
    cancelled: bool = False
    """Whether a client disconnect or a shutdown ended the run early."""
    client_left: bool = False
    """Whether the client disconnected before the answer was complete. The run may have continued."""
    first_token_seconds: float | None = None
    """Seconds from the start of the run to the first part of the reasoning or answer. `None` without either."""
    keep_alives: int = 0
    """Number of keep-alive comments sent while the run produced no events."""


@frozen
class ModelCall:
    """A finished model call."""

    run: RunContext
    agent_name: str
    """The SDK agent that made the call."""
    model: str | None
    """The model that the operator or the agent set. `None`: the default model of the upstream."""
    seconds: float
    usage: Usage
    outcome: Literal["ok", "error", "cancelled"]
    first_chunk_seconds: float | None = None
    """Seconds to the first part of a streamed answer. `None` without streaming."""


@frozen
class Measurement:
    """The current value of an exported metric."""

    name: str
    """The metric name, dot-separated, such as `agent_gateway.event_loop.lag`."""
    value: float
    unit: str
    """The unit in UCUM notation, such as `s` or `{run}`."""
    description: str
    labels: Mapping[str, str] = Factory(dict)
    """Labels of low cardinality, with no values that a client chooses."""
    total: bool = False
    """Whether the metric is a counter, whose value never decreases."""
