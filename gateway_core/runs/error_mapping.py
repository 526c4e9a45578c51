"""Maps an exception that ends a run to an error of the gateway, with a message that is safe to show to clients.

The upstream's response, a tool's exception and the stack trace stay in `__cause__`, for the operator.
"""

import asyncio
import re
import traceback

import agents
import openai

from gateway_core import errors
from gateway_core.errors import GatewayError
from gateway_core.runs.own_client import name_own_client
from gateway_core.sdk import sandbox_clients

_CLIENT_MISTAKES = (400, 413, 422)
_MAX_REASON = 300
_MAX_EXCEPTION = 1000
_KEYS = re.compile(r"\b(?:sk-|agw_|Bearer\s+|key[=:]\s*)[\w.*-]{6,}", re.IGNORECASE)
_MISTAKES = (
    (
        (
            "context_length_exceeded",
            "maximum context length",
            "context window",
            "too many tokens",
            "prompt is too long",
        ),
        ("the conversation is longer than the model's context", "context_length_exceeded"),
    ),
    (
        ("content_filter", "content management policy", "responsibleaipolicy"),
        ("the upstream's content filter rejected the request", "content_filter"),
    ),
    (
        ("does not support tools", "tools are not supported", "tool use is not supported", "tool_use_unsupported"),
        ("the model does not support tools", "upstream_tools_unsupported"),
    ),
    (
        ("model_not_found", "model not found", "no such model"),
        ("the upstream does not have the model", "upstream_model_not_found"),
    ),
)


def as_gateway_error(error: BaseException) -> GatewayError:
    """Return the gateway's error for an exception that a run raised."""
    error = _alone(error)
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, agents.UserError) and isinstance(error.__cause__, GatewayError):
        # The SDK wraps the exception of a tool's task, including the gateway's own errors.
        return error.__cause__
    found = _of_sdk(error) or _of_client(error) or _unknown(error)
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIConnectionError):
        found.upstream = _reason(error)
    if isinstance(error, openai.APIError):
        name_own_client(found, error)
    if isinstance(error, openai.OpenAIError) and not _may_help_to_retry(error):
        found.should_retry = False
    found.__cause__ = error
    return found


def _alone(error: BaseException) -> BaseException:
    """Return the only exception of a group, as `asyncio.TaskGroup` and a context manager of an MCP server raise it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _of_sdk(error: BaseException) -> GatewayError | None:
    match error:
        case agents.MaxTurnsExceeded():
            limit = re.search(r"\(\d+\)", str(error))
            return errors.MaxTurnsError(
                f"the agent exceeded max_turns {limit[0]}" if limit else "the agent exceeded max_turns",
                hint="raise [runs] max_turns; in a workflow, pass `max_turns` to `Runner.run`",
            )
        case agents.ModelBehaviorError():
            return errors.ModelBehaviorError("invalid model output (unknown tool, or wrong output type)")
        case agents.ToolTimeoutError():
            return errors.ToolError(f"the tool {error.tool_name} timed out after {error.timeout_seconds:g} s")
        case agents.ModelTimeoutError():
            return errors.UpstreamTimeoutError("the model call timed out")
        case agents.UserError() if "RunConfig(sandbox=" in str(error):
            return errors.RunError("the agent works in a sandbox, and none is configured", hint=sandbox_clients.CURE)
        case agents.UserError() if (tool := failed_tool(error)) is not None:
            return errors.ToolError(f"the tool {tool} failed")
    return None


def place_of(error: BaseException) -> str:
    """Return the file and line that raised an exception, for logs.

    The exception's message is not logged, because it may contain prompts or a tool's arguments.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown location"


def exception_text(error: BaseException) -> str:
    """Return the type and the message of an exception, for a client that may see it."""
    return f"{type(error).__name__}: {error}"[:_MAX_EXCEPTION]


def tool_error_detail(error: GatewayError) -> str | None:
    """Return the exception of the tool whose failure ended a run; `None` for another failure."""
    of_sdk = error.__cause__
    if not isinstance(error, errors.ToolError) or not isinstance(of_sdk, agents.UserError) or of_sdk.__cause__ is None:
        return None
    return exception_text(of_sdk.__cause__)


def failed_tool(error: BaseException) -> str | None:
    """Return the name of the tool whose failure ended a run, from the SDK's exception."""
    if isinstance(error, agents.ToolTimeoutError):
        return error.tool_name
    if isinstance(error, agents.UserError) and str(error).startswith("Error running tool"):
        return str(error).removeprefix("Error running tool ").partition(":")[0]
    return None


def _of_client(error: BaseException) -> GatewayError | None:
    match error:
        case openai.RateLimitError():
            return errors.UpstreamRateLimitError(
                "the upstream's rate limit or quota is exhausted", retry_after=_retry_after(error)
            )
        case openai.APITimeoutError():
            return errors.UpstreamTimeoutError("the request to the upstream timed out")
        case openai.APIConnectionError():
            return errors.UpstreamError("the connection to the upstream failed or was closed early")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return errors.UpstreamError("the upstream rejected the gateway's credential", code="upstream_auth_failed")
        case openai.NotFoundError():
            return errors.UpstreamError("the upstream does not have the model", code="upstream_model_not_found")
        case openai.APIStatusError() if (known := _known_mistake(error)) is not None:
            message, code = known
            return errors.UpstreamError(message, code=code, status=400)
        case openai.APIStatusError() if error.status_code in _CLIENT_MISTAKES:
            return errors.UpstreamError(
                "the upstream rejected the request as invalid", code="upstream_rejected_request", status=400
            )
        case openai.APIStatusError() if error.status_code == errors.FAILED_AFTER_TOOL:
            # The upstream is a gateway as well, and a retry would call its tools again.
            return errors.UpstreamError("the upstream failed after a tool had started", status=error.status_code)
        case openai.APIStatusError():
            return errors.UpstreamError(f"the upstream failed with status {error.status_code}")
        case openai.OpenAIError() if "api_key" in str(error):
            return errors.UpstreamError(
                "no API key for the upstream is configured",
                code="upstream_auth_failed",
                hint="set OPENAI_API_KEY in the environment of the gateway, or enable a plugin that provides models",
            )
        case openai.OpenAIError():
            return errors.UpstreamError("the upstream returned an invalid response")
    return None


def _unknown(error: BaseException) -> GatewayError:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return errors.RunError("the agent tried to exit the process", code="agent_exit")
    if isinstance(error, asyncio.CancelledError):
        return errors.RunError("the agent cancelled its own run", code="agent_cancelled")
    return errors.RunError("the agent failed")


def _known_mistake(error: openai.APIStatusError) -> tuple[str, str] | None:
    """Our message and code for a mistake that clients and operators can act upon, if the upstream names one."""
    if error.status_code not in (*_CLIENT_MISTAKES, 500):
        return None
    message = error.body.get("message") if isinstance(error.body, dict) else ""
    text = f"{error.code or ''} {error} {message}".casefold()
    return next((known for phrases, known in _MISTAKES if any(phrase in text for phrase in phrases)), None)


def _reason(error: openai.APIError) -> errors.UpstreamReason:
    body = error.body if isinstance(error.body, dict) else {}
    response = error.response if isinstance(error, openai.APIStatusError) else None
    message = body.get("message") or (response is not None and response.text) or str(error)
    text = _KEYS.sub("***", " ".join(str(message).split()))
    status = response.status_code if response is not None else None
    return errors.UpstreamReason(status, str(error.code) if error.code else None, text[:_MAX_REASON])


def _may_help_to_retry(error: openai.OpenAIError) -> bool:
    """Whether a client's retry could succeed: the failure is transient, and the gateway has not retried it itself."""
    if not isinstance(error, openai.APIError) or isinstance(error, openai.APITimeoutError):
        return False
    if isinstance(error, openai.APIStatusError) and not (
        error.status_code in (408, 409, 429) or error.status_code >= 500
    ):
        return False
    return error.request.headers.get("x-stainless-retry-count", "0") == "0"


def _retry_after(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
