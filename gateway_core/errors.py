"""The gateway's exception hierarchy. Each error carries a message, its source and a hint.

This module imports no other module of the gateway. Every other module may import it.

    GatewayError                      each class sets stage, status and code
    ├── ConfigError                   config        a setting is invalid, unknown or missing
    │   └── MultipleConfigError                     several settings are invalid
    ├── PluginError                   plugin        a plugin cannot be loaded or violates a hook's contract
    ├── DiscoveryError                discover      a discovered agent cannot be served
    ├── LoadError                     load          an agent's module fails to import, or exports no agent
    ├── InvalidRequestError    400    route         the request is malformed or invalid
    │   ├── RequestTimeoutError 408                 the request body did not arrive in time
    │   └── RequestTooLargeError 413                the request body exceeds the size limit
    ├── AuthenticationError    401    authenticate  the credential is missing or invalid
    ├── PermissionDeniedError  403    authorize     the principal is not authorized
    ├── RateLimitError         429    authorize     the principal has reached a limit of the gateway
    ├── NotFoundError          404    route         the model or path does not exist
    │   └── MethodNotAllowedError 405               the path does not support the method
    ├── AgentBrokenError       503    load          the agent exists, but failed to load
    ├── AgentLoadingError      503    load          the agent exists, but has not loaded yet
    ├── UnavailableError       503    route         the gateway is shutting down or at capacity
    ├── RunError               500    run           the agent's run failed
    │   ├── MaxTurnsError                           the run exceeded its limit of turns
    │   ├── MaxToolCallsError                       the run exceeded its limit of tool calls
    │   ├── ModelBehaviorError 502                  the model's output is invalid
    │   ├── RunTimeoutError    504                  the run exceeded its time limit
    │   └── ToolError                 tool          a tool failed and the agent ends the run on that failure
    │       └── ToolRefusedError 403                a policy denied a tool call
    └── UpstreamError          502    upstream      the agent's LLM failed
        ├── UpstreamRateLimitError 429              the LLM is rate-limited or out of quota
        └── UpstreamTimeoutError   504              the LLM did not respond in time

An error is raised once, and the core announces it once through the hook `on_error`.
Messages may quote a user's settings or code, but never a secret, a prompt or a tool's arguments.
"""

import enum
from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen


class Stage(enum.StrEnum):
    """The stage of loading or of request processing in which an error occurred."""

    CONFIG = "config"
    PLUGIN = "plugin"
    DISCOVER = "discover"
    LOAD = "load"
    AUTHENTICATE = "authenticate"
    AUTHORIZE = "authorize"
    ROUTE = "route"
    UPSTREAM = "upstream"
    RUN = "run"
    TOOL = "tool"
    STREAM = "stream"


@frozen
class UpstreamReason:
    """The reason that a model server gave for a failure. For operators only: the text may quote the request."""

    status: int | None
    """The HTTP status; `None` if the answer itself is the failure."""
    code: str | None
    message: str
    """Cut, on one line, and without keys."""

    def __str__(self) -> str:
        code = f", code {self.code}" if self.code else ""
        status = f" status {self.status}" if self.status is not None else ""
        return f"upstream{status}{code}: {self.message}"


_MAX_CHARACTERS = 2000


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"


FAILED_AFTER_TOOL = 424
"""The status of a failure after a tool has started: https://www.rfc-editor.org/rfc/rfc4918#section-11.4"""


class GatewayError(Exception):
    """Base class of all errors that the gateway raises deliberately.

    Args:
        message: The failure in one sentence, safe to show to a client. It is cut at 2,000 characters, because it may
            quote names that a client chose.
        source: The location: a file (with line), a configuration table or an entry point.
        hint: The action that resolves the error.
        param: The JSON path of the invalid field, for errors in a request.
        code: A machine-readable code that is more specific than `default_code`.
        status: An HTTP status that replaces `default_status`.
        retry_after: Seconds after which a client may retry.
    """

    stage: ClassVar[Stage] = Stage.RUN
    default_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    """The field `error.type` of OpenAI's error format."""
    should_retry: bool | None = None
    """Whether clients may retry the request; `None` leaves it to them. Clients retry by status otherwise."""

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        hint: str | None = None,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        message = _cut(message)
        super().__init__(message)
        self.message = message
        self.source = source
        self.hint = hint
        self.param = _cut(param) if param else param
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.retry_after = retry_after
        # The core sets these before it announces the error.
        self.upstream: UpstreamReason | None = None
        self.detail: str | None = None
        """The exception of a failed tool, for a client that may see it. It is not logged or recorded."""
        self.agent_id: str | None = None
        self.request_id: str | None = None
        self.principal_id: str | None = None

    def after_tool(self) -> None:
        """Mark the failure of a run in which a tool has started: a retry would call the tool again.

        Some clients ignore `x-should-retry`, so the status must not be one that clients retry.
        """
        self.should_retry = False
        self.retry_after = None
        if self.status in (408, 409, 429) or self.status >= 500:
            self.status = FAILED_AFTER_TOOL

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class ConfigError(GatewayError):
    """A setting is invalid, unknown or missing."""

    stage = Stage.CONFIG
    default_code = "invalid_config"
    file: str | None = None
    """The file of the setting, as given on the command line."""
    line: int | None = None
    """The line of the setting in `file`, counted from 1."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.line is None else text.replace(f"{self.file}", f"{self.file}:{self.line}", 1)


class MultipleConfigError(ConfigError):
    """Several settings are invalid. The attributes are those of the first error; the text has a line for each.

    Args:
        errors: The errors, at least one.
    """

    def __init__(self, errors: Sequence[GatewayError]) -> None:
        first = errors[0]
        super().__init__(first.message, source=first.source, hint=first.hint, code=first.code)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def errors_of(error: GatewayError) -> tuple[GatewayError, ...]:
    """Return the errors that were found at once, or the error itself."""
    return error.errors if isinstance(error, MultipleConfigError) else (error,)


def gateway_error_in(error: BaseException | None) -> GatewayError | None:
    """Return the gateway's own error behind an exception, such as one of a task group; `None` otherwise."""
    while error is not None and not isinstance(error, GatewayError):
        if isinstance(error, BaseExceptionGroup):
            return next(filter(None, map(gateway_error_in, error.exceptions)), None)
        error = error.__cause__ or error.__context__
    return error


class PluginError(GatewayError):
    """A plugin cannot be loaded, or it violates the contract of a hook."""

    stage = Stage.PLUGIN
    default_code = "plugin_failed"


class DiscoveryError(GatewayError):
    """A discovered agent cannot be served, such as one with a conflicting name or a symlink out of the folder."""

    stage = Stage.DISCOVER
    default_code = "agent_not_offered"


class LoadError(GatewayError):
    """An agent's module fails to import, or exports no object that can be served.

    Args:
        line: The line in `source` that caused the error, counted from 1.
        source_line: The text of that line.
    """

    stage = Stage.LOAD
    default_code = "agent_load_failed"

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        line: int | None = None,
        source_line: str | None = None,
    ) -> None:
        super().__init__(message, source=source, hint=hint, code=code)
        self.line = line
        self.source_line = source_line

    def __str__(self) -> str:
        text = super().__str__()
        if self.line is None or self.source is None:
            return text
        return text.replace(self.source, f"{self.source}:{self.line}", 1)


class InvalidRequestError(GatewayError):
    """The request is malformed or invalid, or uses an unsupported feature."""

    stage = Stage.ROUTE
    default_status = 400
    default_code = "invalid_request"
    kind = "invalid_request_error"


class RequestTimeoutError(InvalidRequestError):
    """The request body did not arrive in time."""

    default_status = 408
    default_code = "request_timeout"


class RequestTooLargeError(InvalidRequestError):
    """The request body exceeds the size limit."""

    default_status = 413
    default_code = "request_too_large"


class AuthenticationError(GatewayError):
    """The credential is missing or invalid."""

    stage = Stage.AUTHENTICATE
    default_status = 401
    default_code = "invalid_api_key"
    kind = "authentication_error"


class PermissionDeniedError(GatewayError):
    """The principal is not authorized for the request."""

    stage = Stage.AUTHORIZE
    default_status = 403
    default_code = "permission_denied"
    kind = "permission_error"


class RateLimitError(GatewayError):
    """The principal has reached a limit of the gateway: requests, concurrent runs, or tokens."""

    stage = Stage.AUTHORIZE
    default_status = 429
    default_code = "rate_limit_exceeded"
    kind = "rate_limit_error"


class NotFoundError(GatewayError):
    """The model or the path does not exist."""

    stage = Stage.ROUTE
    default_status = 404
    default_code = "not_found"
    kind = "invalid_request_error"


class MethodNotAllowedError(NotFoundError):
    """The path does not support the HTTP method."""

    default_status = 405
    default_code = "method_not_allowed"


class AgentBrokenError(GatewayError):
    """The agent exists, but failed to load. Only operators see its diagnosis."""

    stage = Stage.LOAD
    default_status = 503
    default_code = "agent_unavailable"


class AgentLoadingError(GatewayError):
    """The gateway has just started, and has not loaded the agent yet."""

    stage = Stage.LOAD
    default_status = 503
    default_code = "agent_loading"


class UnavailableError(GatewayError):
    """The gateway is shutting down or at capacity."""

    stage = Stage.ROUTE
    default_status = 503
    default_code = "unavailable"


class RunError(GatewayError):
    """The agent's run failed."""

    stage = Stage.RUN
    default_code = "run_failed"
    should_retry = False


class MaxTurnsError(RunError):
    """The run exceeded its limit of turns."""

    default_code = "max_turns_exceeded"


class MaxToolCallsError(RunError):
    """The run exceeded its limit of tool calls."""

    default_code = "max_tool_calls_exceeded"


class ModelBehaviorError(RunError):
    """The model called an unknown tool, or its output does not match the agent's output type."""

    default_status = 502
    default_code = "model_behavior"


class RunTimeoutError(RunError):
    """The run exceeded its time limit."""

    default_status = 504
    default_code = "run_timeout"


class ToolError(RunError):
    """A tool failed. By default the model receives the failure and the run continues; the author can end it instead."""

    stage = Stage.TOOL
    default_code = "tool_failed"


class ToolRefusedError(ToolError):
    """A policy denied a tool call. `[runs] refused_tool` sets whether that ends the run."""

    default_status = 403
    default_code = "tool_refused"
    kind = "permission_error"


class UpstreamError(GatewayError):
    """The agent's LLM failed, rejected the request or could not be reached."""

    stage = Stage.UPSTREAM
    default_status = 502
    default_code = "upstream_error"
    kind = "upstream_error"


class UpstreamRateLimitError(UpstreamError):
    """The agent's LLM is rate-limited or out of quota."""

    default_status = 429
    default_code = "upstream_rate_limited"
    kind = "rate_limit_error"


class UpstreamTimeoutError(UpstreamError):
    """The agent's LLM did not respond in time."""

    default_status = 504
    default_code = "upstream_timeout"
