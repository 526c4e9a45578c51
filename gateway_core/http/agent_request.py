"""The common part of the APIs that run an agent: reads the request, and creates the run after authorization.

Each API parses its own body to an `AgentRequest`, in `http/chat/request.py` and `http/responses/request.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from starlette.requests import Request

from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.gateway import RunningGateway
from gateway_core.http.auth import LOCAL, authenticated, permitted_agent
from gateway_core.http.client_detection import session_id, user_id
from gateway_core.http.client_tools import ignored_tools, parse_client_tools
from gateway_core.http.image_inputs import prepare_images
from gateway_core.http.json_io import read_json
from gateway_core.http.middleware.request_context import request_id_of
from gateway_core.net.addresses import is_loopback
from gateway_core.observability.log_context import add_log_context
from gateway_core.runs.run_request import RunRequest
from gateway_core.types import AnswerFormat, BackgroundTask, ClientToolOffer, Principal, RunContext, ServedAgent

Item = dict[str, Any]

_PROXY_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)


@frozen(kw_only=True)
class AgentRequest:
    """A parsed request to run an agent."""

    model: str
    items: list[Item]
    """The new input items, in the SDK's format."""
    given: Sequence[Mapping[str, Any]]
    """The messages or items as the client sent them."""
    text: str
    """Text of the last user message."""
    system: str | None
    """Text of the system and developer messages, which is added to the agent's instructions."""
    stream: bool
    settings: Mapping[str, Any]
    """Model settings, by field name of the SDK's `ModelSettings`."""
    metadata: Mapping[str, Any]
    tool_fields: Mapping[str, Any]
    """The fields that concern the client's tools, not validated."""
    answer_format: AnswerFormat | None = None


async def read_request(request: Request, gateway: RunningGateway) -> tuple[Principal, dict[str, Any]]:
    """Authenticates a request, and returns its principal and its body."""
    principal = await authenticated(request, gateway)
    limits = gateway.config.http
    body = await read_json(
        request,
        max_body=limits.max_body,
        timeout=limits.body_timeout,
        max_depth=limits.max_json_depth,
        max_values=limits.max_json_values,
    )
    return principal, body


async def prepare_run(
    request: Request, gateway: RunningGateway, principal: Principal, asked: AgentRequest
) -> RunRequest:
    """Authorizes the principal to use the agent, checks the images, and returns the run to start.

    Raises:
        NotFoundError: No agent has this name.
        PermissionDeniedError: The principal is not allowed to use the agent.
        InvalidRequestError: An image is not allowed, or cannot be fetched.
    """
    served = await permitted_agent(asked.model, principal, gateway, request)
    await prepare_images(asked.items, gateway.config.http)
    chat_id = session_id(request.headers, asked.metadata)
    add_log_context(chat_id=chat_id, user_id=user_id(request.headers))
    task: BackgroundTask | None = None
    offer: ClientToolOffer | None = None
    ignored: tuple[str, ...] = ()
    if gateway.config.agent(served.id).background_tasks:
        task = gateway.hooks.background_task(served.entry, request.headers, asked.given, asked.stream)
    if task is None:
        offer, ignored = _client_tools(asked.tool_fields, gateway, served)
    run = RunContext(
        request_id_of(request.scope),
        principal,
        served.id,
        request.headers.get("user-agent"),
        session_id=chat_id,
        task=task.kind if task else None,
    )
    return RunRequest(
        served,
        run,
        asked.items,
        asked.text,
        live=asked.stream,
        system=asked.system,
        settings=asked.settings,
        metadata=asked.metadata,
        answer_format=asked.answer_format,
        client_tools=offer,
        ignored_tools=ignored,
        task=task,
        show_tool_errors=_sees_tool_errors(request, principal, gateway.config.runs.tool_errors),
    )


def _sees_tool_errors(request: Request, principal: Principal, setting: str) -> bool:
    """Whether a client sees the exceptions of tools: on the developer's own machine, unless the setting decides it.

    A proxy on the machine may pass on requests of others.
    """
    if setting != "local":
        return setting == "all"
    if principal is not LOCAL or not _PROXY_HEADERS.isdisjoint(request.headers.keys()):
        return False
    try:
        called = urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return False
    return all(host is not None and is_loopback(host) for host in (called, request.client and request.client.host))


def _client_tools(
    fields: Mapping[str, Any], gateway: RunningGateway, served: ServedAgent
) -> tuple[ClientToolOffer | None, tuple[str, ...]]:
    """Returns the client's tools for the agent, if it accepts any, and the names of the tools that are ignored."""
    config = gateway.config
    mode = config.agent(served.id).client_tools or served.client_tools or config.clients.client_tools
    if mode == "offer" and isinstance(served.runnable, AgentRunnable):
        return parse_client_tools(fields)
    return None, ignored_tools(fields)
