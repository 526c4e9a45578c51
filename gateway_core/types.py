"""The values that travel between the parts of the gateway, all frozen.

Nothing here acts: no I/O, no SDK, no framework. `RunEvent` is the closed family that an agent's run is
told in; every HTTP surface only renders it.
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
    """An agent that was discovered, not yet imported."""

    id: str
    """What clients call `model`, such as `SampleAgent` or `labs/Research`."""
    source: str
    """Where it comes from, for people: a file's path, or an entry point."""
    digest: str
    """Of everything that the agent is made of; while it stays the same, the served agent is reused."""
    load: Callable[[], object] = field(eq=False, repr=False)
    """Import it. Returns the module, or the object that an entry point names. Blocking; runs in a worker thread."""
    unload: Callable[[], None] | None = field(default=None, eq=False, repr=False)
    """Called when the last run on what `load` returned has ended, after it was replaced."""
    description: str = ""
    folder: Path | None = None
    """The folder that is its own, when it has one; what it needs is declared there."""

    trial: tuple[str, ...] = field(default=(), eq=False, repr=False)
    """A command that imports it in another process and exits with `trial.SURVIVED`; none where that makes no sense."""

    @property
    def namespace(self) -> str:
        """The folders above the agent's own, joined by `/`; `default` at the top level."""
        return self.id.rpartition("/")[0] or DEFAULT_NAMESPACE


@frozen
class ServedAgent:
    """An agent that was imported and equipped, and can run."""

    entry: AgentEntry
    runnable: Any = field(repr=False)
    """What runs: one of the classes of `gateway_core.catalog.runnables`, opaque to everything below it."""
    display_name: str
    description: str = ""
    model: str | None = None
    """The model that its module asks for in `__gateway__`, used where its agents name none."""
    memory: bool = False
    """Whether its module asks for a memory of chats, as `__gateway__ = {"memory": "session"}`."""
    warnings: tuple[str, ...] = ()
    """What an operator should know although the agent works."""
    loaded_at: float = Factory(time.time)
    """Seconds since the epoch."""

    @property
    def id(self) -> str:
        """The id of its entry."""
        return self.entry.id


@frozen
class BrokenAgent:
    """An agent that was discovered and could not be loaded."""

    id: str
    source: str
    error: GatewayError
    digest: str = ""
    """What was tried; the same digest is not tried again."""

    def diagnosis(self) -> dict[str, Any]:
        """What an operator needs to mend it, as JSON: kind, message, file, line, the author's own line, hint."""
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
    """All agents at one moment. A reload makes a new one; a request keeps the one it began with."""

    agents: Mapping[str, ServedAgent] = Factory(dict)
    """By id, in the order in which they were discovered."""
    broken: Mapping[str, BrokenAgent] = Factory(dict)
    """Agents whose newest version could not be loaded; one that is also in `agents` serves its last good version."""
    generation: int = 0
    """Counts the catalogs, from 1."""
    seconds: float = field(default=0.0, eq=False)
    """How long it took to make it."""
    _ids: Mapping[str, str] = field(init=False, repr=False, eq=False)

    @_ids.default
    def _fold_ids(self) -> Mapping[str, str]:
        return {agent_id.casefold(): agent_id for agent_id in (*self.broken, *self.agents)}

    def resolve(self, name: str) -> str | None:
        """The id that a client means: in any case, and with `default/` before a top-level agent's id or without."""
        folded = name.casefold()
        found = self._ids.get(folded) or self._ids.get(folded.removeprefix(f"{DEFAULT_NAMESPACE}/"))
        # `default/labs/Research` is nobody's name: only top-level agents live in the default namespace.
        return None if found and "/" in found and folded != found.casefold() else found


@frozen
class Principal:
    """Who asks."""

    id: str
    admin: bool = False
    key: str | None = None
    """The id of the key that was used, which may be shown; `None` where there was none."""


@frozen
class Decision:
    """What a policy says about one question, and which of its rules says so."""

    allowed: bool
    source: str
    """The level of the policy that decided, such as `key` or `namespace`."""
    pattern: str | None = None
    reason: str | None = None
    override: str | None = None
    """The id of the override that decided, when one did."""


@frozen
class DecisionMade:
    """A decision that took effect, as it is announced. A question that is only looked at is none."""

    request_id: str
    principal: Principal
    kind: str
    """What was asked for: `agent`, `tool`, `module` or `admin`."""
    subject: str
    """An agent's id, a tool's name, a module's id or the path of an admin page."""
    decision: Decision
    seconds: float
    """How long the decision took."""
    agent_id: str | None = None
    """For a tool: whose it is."""


@frozen
class Check:
    """Something that a gateway needs for its work, or that should be well."""

    name: str
    ok: bool
    needed: bool = True
    """Whether the gateway can take no work without it."""


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
    """What is known of a run before it starts."""

    request_id: str
    principal: Principal
    agent_id: str
    client: str | None = None
    """What the client calls itself, when it does."""
    started: float = Factory(time.time)
    """Seconds since the epoch."""
    session_id: str | None = None
    """The chat that the request belongs to, when the client says so. Nobody else's chat has the same one: it is to be
    read together with the principal."""
    task: str | None = None
    """For what a chat UI asks in the background, such as `title`: its kind. The agent then has no part in the run."""


@frozen
class BackgroundTask:
    """What a chat UI asks beside the chat, such as a title for it."""

    kind: str
    """`title`, `tags` and so on."""
    model: str | None = None
    """Which model is to answer it; `None` for the default upstream's own."""
    answer: str | None = None
    """What to answer when no model can."""
    local: bool = False
    """Whether no model is to be asked."""


ToolSource = Literal["sdk-native", "gateway", "mcp", "hosted"]


@frozen
class ToolInfo:
    """A tool as a policy sees it."""

    name: str
    source: ToolSource
    agent_id: str
    """The served agent that calls it, or else the one in whose run it is called."""
    agent_name: str
    """The SDK agent that calls it: the served one, a handoff target or one that is used as a tool."""
    server: str | None = None
    """For an MCP tool: the server's name."""
    open: bool = True
    """What holds when no policy has an opinion on it."""


@frozen
class ToolCall:
    """A tool call that ended."""

    run: RunContext
    tool: ToolInfo
    call_id: str
    seconds: float
    outcome: Literal["ok", "error", "refused", "cancelled"]


@frozen
class Usage:
    """Tokens as the upstream counted them, summed over all model calls of a run. Never estimated."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
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
    """How a run ended."""

    seconds: float
    usage: Usage
    error: GatewayError | None = None
    cancelled: bool = False
    """Whether the client left, or the gateway stopped, before the run was through."""
    client_left: bool = False
    """Whether the client left before its answer was through; the run may have gone on."""
    first_token_seconds: float | None = None
    """From the run's start to the first piece of the answer, or of the reasoning before it; `None` without one."""
    keep_alives: int = 0
    """How many comments were sent because the run was silent."""


@frozen
class ModelCall:
    """A call of a model that ended."""

    run: RunContext
    agent_name: str
    """The SDK agent that makes it."""
    model: str | None
    """As the operator or the agent names it; `None` where nobody does, and the upstream's own default is used."""
    seconds: float
    usage: Usage
    outcome: Literal["ok", "error", "cancelled"]
    first_chunk_seconds: float | None = None
    """To the first piece of its answer, where that is streamed to somebody."""


@frozen
class Measurement:
    """A number to be exported, as it is at this moment."""

    name: str
    """With dots, such as `agent_gateway.event_loop.lag`."""
    value: float
    unit: str
    """By UCUM, such as `s` or `{run}`."""
    description: str
    labels: Mapping[str, str] = Factory(dict)
    """Few, and none of a client's choosing."""
    total: bool = False
    """Whether it only ever grows."""


@frozen
class TextDelta:
    """A piece of the answer."""

    text: str


@frozen
class ReasoningDelta:
    """A piece of what the model, or an agent on the way to the answer, thinks."""

    text: str


@frozen
class ToolStarted:
    """An agent calls a tool that the gateway runs."""

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@frozen
class ToolProgress:
    """A tool that takes its time says what it does at the moment."""

    call_id: str
    message: str
    """As the tool wrote it: data, and no part of the answer."""


@frozen
class ToolFinished:
    """A tool's answer went back to the model."""

    call_id: str
    name: str
    output: str


@frozen
class AgentChanged:
    """Another agent speaks from here on."""

    name: str


@frozen
class PendingCall:
    """A tool call that waits for a person's word."""

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@frozen
class ApprovalAsked:
    """The run pauses until a person approves or rejects some tool calls."""

    id: str
    """What an answer has to refer to. Nobody can guess it."""
    calls: tuple[PendingCall, ...]
    seconds: float
    """How long an answer is waited for."""


@frozen
class Completed:
    """The run is through. Always the last event, unless `Failed` is."""

    usage: Usage
    finish_reason: str = "stop"
    """`stop`; `length` when the model was cut off at its limit of tokens; `content_filter` when a guardrail stopped the
    run, the model refused, or its provider filtered the answer."""


@frozen
class Failed:
    """The run failed. Always the last event, unless `Completed` is."""

    error: GatewayError
    usage: Usage = Usage()


RunEvent = (
    TextDelta
    | ReasoningDelta
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | AgentChanged
    | ApprovalAsked
    | Completed
    | Failed
)
