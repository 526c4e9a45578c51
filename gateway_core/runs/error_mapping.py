"""Whatever ends a run badly becomes one error of the gateway's tree, with words that are safe to show to a client.

An upstream's answer, a tool's exception and a stack trace stay in `__cause__`, for the operator.
"""

import asyncio
import traceback

import agents
import openai

from gateway_core import errors
from gateway_core.errors import GatewayError

_CLIENT_MISTAKES = (400, 413, 422)


def as_gateway_error(error: BaseException) -> GatewayError:
    """The gateway's error for an exception that came out of a run."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, agents.UserError) and isinstance(error.__cause__, GatewayError):
        # The SDK wraps what ends a tool's task, also when the gateway itself ended it.
        return error.__cause__
    found = _of_sdk(error) or _of_client(error) or _unknown(error)
    found.__cause__ = error
    return found


def _of_sdk(error: BaseException) -> GatewayError | None:
    match error:
        case agents.MaxTurnsExceeded():
            return errors.MaxTurnsError(
                "the agent did not come to an end within its limit of turns", hint="raise [runs] max_turns"
            )
        case agents.ModelBehaviorError():
            return errors.ModelBehaviorError("the model's answer makes no sense to the agent")
        case agents.ToolTimeoutError():
            return errors.ToolError(f"the tool {error.tool_name} did not end within {error.timeout_seconds:g} s")
        case agents.ModelTimeoutError():
            return errors.UpstreamTimeoutError("the model did not answer in time")
        case agents.UserError() if (tool := failed_tool(error)) is not None:
            return errors.ToolError(f"the tool {tool} failed")
    return None


def place_of(error: BaseException) -> str:
    """The file and line that raised it. Its text stays out of logs: it may hold prompts or a tool's arguments."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


def failed_tool(error: BaseException) -> str | None:
    """The name of the tool whose failure ended a run, as the SDK says."""
    if isinstance(error, agents.ToolTimeoutError):
        return error.tool_name
    if isinstance(error, agents.UserError) and str(error).startswith("Error running tool"):
        return str(error).removeprefix("Error running tool ").partition(":")[0]
    return None


def _of_client(error: BaseException) -> GatewayError | None:
    match error:
        case openai.RateLimitError():
            return errors.UpstreamRateLimitError(
                "the model's server is out of quota or too busy", retry_after=_retry_after(error)
            )
        case openai.APITimeoutError():
            return errors.UpstreamTimeoutError("the model's server did not answer in time")
        case openai.APIConnectionError():
            return errors.UpstreamError("the model's server could not be reached, or broke off")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return errors.UpstreamError(
                "the model's server refuses the gateway's credential", code="upstream_auth_failed"
            )
        case openai.NotFoundError():
            return errors.UpstreamError("the model's server does not know the model", code="upstream_model_not_found")
        case openai.APIStatusError() if error.status_code in _CLIENT_MISTAKES:
            return errors.UpstreamError(
                "the model's server refuses the request", code="upstream_rejected_request", status=400
            )
        case openai.APIStatusError():
            return errors.UpstreamError(f"the model's server failed with status {error.status_code}")
        case openai.OpenAIError() if "api_key" in str(error):
            return errors.UpstreamError(
                "there is no key for the model's server",
                code="upstream_auth_failed",
                hint="set OPENAI_API_KEY where the gateway starts, or switch on a plugin that has models",
            )
        case openai.OpenAIError():
            return errors.UpstreamError("the model's server answered something that is no answer")
    return None


def _unknown(error: BaseException) -> GatewayError:
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return errors.RunError("the agent tried to end the process", code="agent_exit")
    if isinstance(error, asyncio.CancelledError):
        return errors.RunError("the agent cancelled its own run", code="agent_cancelled")
    return errors.RunError("the agent failed")


def _retry_after(error: openai.APIStatusError) -> float | None:
    value = error.response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
