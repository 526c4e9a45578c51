"""The one tree of errors: what went wrong, where, and what to do about it.

This module must not import anything of the gateway; every other module may import it.

    GatewayError                      stage, status and code are set by each class
    ├── ConfigError                   config        a setting is wrong, unknown or missing
    ├── PluginError                   plugin        a plugin cannot be loaded or breaks a hook's contract
    ├── DiscoveryError                discover      an agent is there but cannot be offered
    ├── LoadError                     load          an agent's module fails, or exports nothing to serve
    ├── InvalidRequestError    400    route         the request cannot be understood
    │   ├── RequestTimeoutError 408                 the body did not arrive in time
    │   └── RequestTooLargeError 413                the body is over the limit
    ├── AuthenticationError    401    authenticate  no credential, or a bad one
    ├── PermissionDeniedError  403    authorize     this principal may not do this
    ├── RateLimitError         429    authorize     this principal has had its share for now
    ├── NotFoundError          404    route         no such model or page
    │   └── MethodNotAllowedError 405               the page is there, the method is not
    ├── AgentBrokenError       503    load          the agent exists, but its last load failed
    ├── UnavailableError       503    route         the gateway is stopping or full
    ├── RunError               500    run           the agent's run failed
    │   ├── MaxTurnsError                           it took more turns than it may
    │   ├── MaxToolCallsError                       it called more tools than it may
    │   ├── ModelBehaviorError 502                  the model answered nonsense
    │   ├── RunTimeoutError    504                  it took more time than it may
    │   └── ToolError                 tool          a tool failed, and the agent lets that end the run
    │       └── ToolRefusedError 403                a policy refuses a tool's call
    └── UpstreamError          502    upstream      the LLM behind the agent failed
        ├── UpstreamRateLimitError 429              it is out of quota or too busy
        └── UpstreamTimeoutError   504              it did not answer in time

An error is raised once. The core announces it once, by the hook `on_error`; whoever cares hears it there.
Messages quote the user's own text, and never a secret, a prompt or a tool's arguments.
"""

import enum
from typing import ClassVar


class Stage(enum.StrEnum):
    """Where in the life of a file or of a request an error happened."""

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


class GatewayError(Exception):
    """Base of everything the gateway raises on purpose.

    Args:
        message: What happened, in one sentence, safe to show to a client.
        source: Where: a file (with line), a configuration table or an entry point.
        hint: What to do about it.
        param: The JSON path of the offending field, for errors in a request.
        code: A machine-readable code, where the class's own is too coarse.
        status: An HTTP status, where the class's own is too coarse.
        retry_after: Seconds after which a client may try again.
    """

    stage: ClassVar[Stage] = Stage.RUN
    default_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    """OpenAI's `error.type`."""

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
        super().__init__(message)
        self.message = message
        self.source = source
        self.hint = hint
        self.param = param
        self.code = code or self.default_code
        self.status = status or self.default_status
        self.retry_after = retry_after
        # Whom it concerned; the core fills these in before it announces the error.
        self.agent_id: str | None = None
        self.request_id: str | None = None
        self.principal_id: str | None = None

    def __str__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{hint}"


class ConfigError(GatewayError):
    """A setting is wrong, unknown or missing."""

    stage = Stage.CONFIG
    default_code = "invalid_config"


class PluginError(GatewayError):
    """A plugin cannot be loaded, or it breaks the contract of a hook."""

    stage = Stage.PLUGIN
    default_code = "plugin_failed"


class DiscoveryError(GatewayError):
    """An agent is there, but cannot be offered: a clash of names, a link that leaves the folder."""

    stage = Stage.DISCOVER
    default_code = "agent_not_offered"


class LoadError(GatewayError):
    """An agent's module fails at import, or exports nothing that can be served.

    Args:
        line: The line in `source` that is to blame, counted from 1.
        source_line: That line's text, as the user wrote it.
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
    """The request cannot be understood, or asks for something that does not exist here."""

    stage = Stage.ROUTE
    default_status = 400
    default_code = "invalid_request"
    kind = "invalid_request_error"


class RequestTimeoutError(InvalidRequestError):
    """The body of the request did not arrive in time."""

    default_status = 408
    default_code = "request_timeout"


class RequestTooLargeError(InvalidRequestError):
    """The body of the request is over the limit."""

    default_status = 413
    default_code = "request_too_large"


class AuthenticationError(GatewayError):
    """There is no credential where one is needed, or it is a bad one."""

    stage = Stage.AUTHENTICATE
    default_status = 401
    default_code = "invalid_api_key"
    kind = "authentication_error"


class PermissionDeniedError(GatewayError):
    """This principal may not do this."""

    stage = Stage.AUTHORIZE
    default_status = 403
    default_code = "permission_denied"
    kind = "permission_error"


class RateLimitError(GatewayError):
    """A limit of the gateway's own is reached: requests, runs at a time, or tokens."""

    stage = Stage.AUTHORIZE
    default_status = 429
    default_code = "rate_limit_exceeded"
    kind = "rate_limit_error"


class NotFoundError(GatewayError):
    """No such model, or no such page."""

    stage = Stage.ROUTE
    default_status = 404
    default_code = "not_found"
    kind = "invalid_request_error"


class MethodNotAllowedError(NotFoundError):
    """The page is there, but does not take this method."""

    default_status = 405
    default_code = "method_not_allowed"


class AgentBrokenError(GatewayError):
    """The agent exists, but it could not be loaded; its diagnosis is with the operator."""

    stage = Stage.LOAD
    default_status = 503
    default_code = "agent_unavailable"


class UnavailableError(GatewayError):
    """The gateway is stopping, or as full as it may get."""

    stage = Stage.ROUTE
    default_status = 503
    default_code = "unavailable"


class RunError(GatewayError):
    """The agent's run failed."""

    stage = Stage.RUN
    default_code = "run_failed"


class MaxTurnsError(RunError):
    """The run took more turns than it may."""

    default_code = "max_turns_exceeded"


class MaxToolCallsError(RunError):
    """The run called more tools than it may."""

    default_code = "max_tool_calls_exceeded"


class ModelBehaviorError(RunError):
    """The model called a tool that is not there, or its output does not fit the agent's output type."""

    default_status = 502
    default_code = "model_behavior"


class RunTimeoutError(RunError):
    """The run took more time than it may."""

    default_status = 504
    default_code = "run_timeout"


class ToolError(RunError):
    """A tool failed. The run goes on, and the model is told, unless the agent's author lets it end."""

    stage = Stage.TOOL
    default_code = "tool_failed"


class ToolRefusedError(ToolError):
    """A policy refuses the call of a tool. `[runs] refused_tool` says whether that ends the run."""

    default_status = 403
    default_code = "tool_refused"
    kind = "permission_error"


class UpstreamError(GatewayError):
    """The LLM behind the agent failed, refused or could not be reached."""

    stage = Stage.UPSTREAM
    default_status = 502
    default_code = "upstream_error"
    kind = "upstream_error"


class UpstreamRateLimitError(UpstreamError):
    """The LLM behind the agent is out of quota, or too busy."""

    default_status = 429
    default_code = "upstream_rate_limited"
    kind = "rate_limit_error"


class UpstreamTimeoutError(UpstreamError):
    """The LLM behind the agent did not answer in time."""

    default_status = 504
    default_code = "upstream_timeout"
