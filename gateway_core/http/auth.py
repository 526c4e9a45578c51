"""Authenticates requests and authorizes their principal to use an agent or an admin endpoint.

Plugins make the decisions; this module calls their hooks in order and maps a denial to an error.
"""

import difflib
import time

from starlette.requests import Request

from gateway_core.catalog.load_errors import public_reason
from gateway_core.errors import (
    AgentBrokenError,
    AgentLoadingError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
)
from gateway_core.gateway import RunningGateway
from gateway_core.http.middleware.request_context import request_id_of
from gateway_core.observability.log_context import add_log_context
from gateway_core.types import Catalog, Decision, DecisionMade, Principal, ServedAgent

_MAX_NAME_CHARACTERS = 256

LOCAL = Principal("local", admin=True)
"""The principal of all requests when no plugin authenticates; such a gateway serves loopback only."""

_LOADING_SECONDS = 2


async def authenticated(request: Request, gateway: RunningGateway) -> Principal:
    """Returns the principal of a request.

    Raises:
        AuthenticationError: The credential is missing or invalid.
        PermissionDeniedError: A plugin denies the request, regardless of the agent.
    """
    principal = await gateway.hooks.authenticate(request)
    if principal is None:
        if gateway.hooks.guarded:
            raise AuthenticationError("missing API key", hint="send it as `Authorization: Bearer KEY`")
        principal = LOCAL
    add_log_context(principal=principal.id)
    if principal is LOCAL:
        return principal
    began = time.perf_counter()
    decision = await gateway.hooks.authorize_request(principal, request)
    if decision is not None and not decision.allowed:
        _report_decision(gateway, request, principal, "admin", request.url.path, decision, began)
        raise PermissionDeniedError(decision.reason or f"'{principal.id}' is not allowed to make this request")
    return principal


async def admin_only(request: Request, gateway: RunningGateway) -> Principal:
    """Returns the principal of a request to an admin route.

    Raises:
        AuthenticationError: The credential is missing or invalid.
        PermissionDeniedError: The principal is not an admin.
    """
    began = time.perf_counter()
    principal = await authenticated(request, gateway)
    decision = Decision(principal.admin, "admin", reason=None if principal.admin else "not an admin")
    _report_decision(gateway, request, principal, "admin", request.url.path, decision, began)
    if not principal.admin:
        raise PermissionDeniedError("this endpoint requires an admin key", code="admin_required")
    return principal


async def visible(principal: Principal, gateway: RunningGateway, catalog: Catalog) -> list[ServedAgent]:
    """Returns the agents that a principal is allowed to use, in catalog order."""
    hooks = gateway.hooks
    return [a for a in catalog.agents.values() if (await hooks.authorize(principal, a.entry)).allowed]


async def permitted_agent(name: str, principal: Principal, gateway: RunningGateway, request: Request) -> ServedAgent:
    """Resolves a model name to an agent, authorizes the principal and reports the decision to plugins.

    Raises:
        NotFoundError: No agent matches; the error suggests similar names among those visible to the principal.
        AgentBrokenError: The agent exists, but could not be loaded. Only admins see this error.
        AgentLoadingError: The agent has not loaded yet.
        PermissionDeniedError: The policy denies access.
    """
    catalog = gateway.catalog
    agent_id = catalog.resolve(name) if len(name) <= _MAX_NAME_CHARACTERS else None
    served = catalog.agents.get(agent_id) if agent_id else None
    entry = served.entry if served else catalog.loading.get(agent_id) if agent_id else None
    if entry is None:
        if not catalog.generation and not catalog.loading:
            raise AgentLoadingError("the gateway is starting; try again in a few seconds", retry_after=_LOADING_SECONDS)
        if agent_id and principal.admin:
            broken = catalog.broken[agent_id]
            add_log_context(agent_id=agent_id, module_path=broken.source)
            unavailable = AgentBrokenError(
                f"the agent '{agent_id}' could not be loaded: {public_reason(broken.error)}", source=broken.source
            )
            unavailable.agent_id = agent_id
            raise unavailable
        raise await _not_found(name, principal, gateway, catalog)
    began = time.perf_counter()
    decision = await gateway.hooks.authorize(principal, entry)
    _report_decision(gateway, request, principal, "agent", entry.id, decision, began)
    add_log_context(agent_id=entry.id, namespace=entry.namespace, module_path=entry.source)
    if not decision.allowed:
        raise PermissionDeniedError(f"'{principal.id}' is not allowed to use the model '{entry.id}'")
    if served is None:
        raise AgentLoadingError(
            f"the model '{entry.id}' is still loading; try again in a few seconds", retry_after=_LOADING_SECONDS
        )
    return served


def _report_decision(
    gateway: RunningGateway,
    request: Request,
    principal: Principal,
    kind: str,
    subject: str,
    decision: Decision,
    began: float,
) -> None:
    seconds = time.perf_counter() - began
    gateway.hooks.on_decision(DecisionMade(request_id_of(request.scope), principal, kind, subject, decision, seconds))


async def _not_found(name: str, principal: Principal, gateway: RunningGateway, catalog: Catalog) -> NotFoundError:
    if len(name) > _MAX_NAME_CHARACTERS:
        name = name[:_MAX_NAME_CHARACTERS]  # finding similar names takes time proportional to the length
    known = [agent.id for agent in await visible(principal, gateway, catalog)]
    folded = {agent_id.casefold(): agent_id for agent_id in known}
    # Also match the last path segment: `Research` for `labs/Research`.
    folded.update({agent_id.rpartition("/")[2].casefold(): agent_id for agent_id in known})
    several = [agent_id for agent_id in known if agent_id.casefold().startswith(f"{name.casefold()}/")]
    if several:
        listed = ", ".join(repr(agent_id) for agent_id in several[:10])
        hint = f"it stands for several models: {listed}{' and more' if len(several) > 10 else ''}"
        return NotFoundError(
            f"the model '{name[:100]}' does not exist", param="model", code="model_not_found", hint=hint
        )
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    near = list(dict.fromkeys(folded[match] for match in close))
    hint = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else "GET /v1/models lists the available models"
    )
    return NotFoundError(f"the model '{shown}' does not exist", param="model", code="model_not_found", hint=hint)
