"""`POST /security/preview`: shows how the policy decides a query, with every level that was evaluated.

It uses the same evaluator as requests do, and changes no state. The route is for admins only, because the result
reveals which agents and rules exist.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway_core import (
    Catalog,
    InvalidRequestError,
    NotFoundError,
    ToolOrigin,
    described,
    json_response,
    origin_of,
    read_json,
    tool_names,
)
from gateway_plugins.security.access_query import GATEWAY, AccessQuery
from gateway_plugins.security.overrides.grant_request import parse_grant
from gateway_plugins.security.policy.compiler import TOOL_SOURCES, Policy
from gateway_plugins.security.policy.evaluator import PolicyEvaluator, Verdict

_FIELDS = ("principal", "key", "agent", "module", "tool", "source", "server")
_MAX_LENGTH = 512

_TEXT = {"type": "string", "minLength": 1, "maxLength": _MAX_LENGTH}


_NULL = {"type": "null"}
_TEXT_OR_NULL = {"anyOf": [_TEXT, _NULL]}


def _form(*required: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a query with these fields. `null` counts as missing."""
    given: dict[str, Any] = dict.fromkeys(_FIELDS, _NULL)
    given |= dict.fromkeys(optional, _TEXT_OR_NULL) | dict.fromkeys(required, _TEXT)
    if "source" in optional:
        given["source"] = {"enum": [*TOOL_SOURCES, None]}
    return {"type": "object", "required": [*required], "properties": given, "additionalProperties": False}


_QUERY = {
    "anyOf": [
        _form("module", optional=("principal", "key", "source", "server")),
        _form("agent", "principal", optional=("source", "server")),
        _form("agent", "key", optional=("principal", "source", "server")),
        _form("tool", "principal", optional=("agent", "source", "server")),
        _form("tool", "key", optional=("principal", "agent", "source", "server")),
    ]
}


def preview_route(current: Callable[[], tuple[Policy, PolicyEvaluator]], catalog: Callable[[], Catalog]) -> Route:
    """Create the route.

    Args:
        current: Returns the current policy and its evaluator.
        catalog: Returns the current catalog.
    """

    @described("Preview a policy decision", takes=_QUERY)
    async def preview(request: Request) -> Response:
        fields = _fields(await read_json(request))
        return json_response(_preview(fields, *current(), catalog()))

    return Route("/security/preview", preview, methods=["POST"])


def _preview(fields: Mapping[str, str], policy: Policy, rules: PolicyEvaluator, catalog: Catalog) -> dict[str, Any]:
    kinds = [kind for kind in ("module", "tool") if kind in fields] or ["agent"]
    subject = fields.get(kinds[0])
    if subject is None or len(kinds) > 1 or ("module" in fields and "agent" in fields):
        raise InvalidRequestError(
            "exactly one of 'agent', 'module' and 'tool' is required",
            hint="with 'tool', 'agent' names the tool's agent",
        )
    key, principal = _caller(fields, policy, needed=kinds[0] != "module")
    if kinds[0] == "module":
        return _module(subject, rules)
    agent_id = fields.get("agent")
    if agent_id is not None:
        # Aliases resolve to the agent's id.
        agent_id = catalog.resolve(agent_id) or agent_id
    if kinds[0] == "agent":
        return _agent(AccessQuery("agent", agent_id or subject, principal, key), rules)
    origin = _origin(fields, agent_id, catalog)
    query = AccessQuery("tool", subject, principal, key, agent_id, origin.source, origin.server)
    verdict = rules.tool(query, is_open=origin.open)
    # The narrowest pattern: it matches no tool of this name on another server.
    name = tool_names(subject, origin.source, origin.server)[-1]
    return _shown(query, verdict, _grant(verdict, "tool", f"{origin.source}:{name}", query.key or principal))


def _module(module_id: str, rules: PolicyEvaluator) -> dict[str, Any]:
    query = AccessQuery("module", module_id, GATEWAY)
    verdict = rules.decide(query)
    return _shown(query, verdict, _grant(verdict, "module", module_id, GATEWAY))


def _agent(query: AccessQuery, rules: PolicyEvaluator) -> dict[str, Any]:
    verdict = rules.agent(query)
    if rules.decide(query.of_module).decision.allowed:
        grant = _grant(verdict, "agent", query.subject, query.key or query.principal)
    elif rules.agent_ignoring_module(query).decision.allowed:
        grant = _grant(verdict, "module", query.subject, GATEWAY)
    else:
        grant = None  # Two refusals need two overrides.
    return _shown(query, verdict, grant)


def _origin(fields: Mapping[str, str], agent_id: str | None, catalog: Catalog) -> ToolOrigin:
    """The origin of a tool: the fields of the query, completed from a matching tool of a served agent."""
    source, server = fields.get("source"), fields.get("server")
    for served in catalog.agents.values():
        if agent_id in (None, served.id):
            for tool in (tool for agent in served.runnable.agents for tool in agent.tools):
                origin = origin_of(tool)
                known = (origin.name or tool.name, origin.source, origin.server)
                if known == (fields["tool"], source or origin.source, server or origin.server):
                    return origin
    return ToolOrigin(cast(Any, source or "sdk-native"), server)


def _caller(fields: Mapping[str, str], policy: Policy, *, needed: bool) -> tuple[str | None, str]:
    """The ids of the key and of the principal that the query names."""
    if (key_id := fields.get("key")) is not None:
        key = policy.keys.by_id.get(key_id)
        if key is None:
            raise NotFoundError("no key has this id", param="key", hint="GET /admin/plugins lists the keys")
        if fields.get("principal", key.principal.id) != key.principal.id:
            raise InvalidRequestError("the key belongs to another principal", param="principal")
        return key.id, key.principal.id
    principal = fields.get("principal")
    if principal is None:
        if needed:
            raise InvalidRequestError("'principal' or 'key' is required", param="principal")
        return None, "gateway"
    keys = [key.id for key in policy.keys.by_id.values() if key.principal.id == principal]
    if len(keys) > 1:
        raise InvalidRequestError(
            f"'{principal}' has several keys", param="key", hint=f"set 'key' to one of {', '.join(keys)}"
        )
    return (keys[0] if keys else None), principal


def _shown(query: AccessQuery, verdict: Verdict, grant: dict[str, str] | None) -> dict[str, Any]:
    decision = verdict.decision
    return {
        "object": "security.preview",
        "kind": query.kind,
        "subject": query.subject,
        "principal": query.principal,
        "key": query.key,
        "allowed": decision.allowed,
        "source": decision.source,
        "pattern": decision.pattern,
        "reason": decision.reason,
        "override": decision.override,
        "chain": [asdict(step) for step in verdict.chain],
        "override_that_would_allow": grant,
    }


def _grant(verdict: Verdict, kind: str, pattern: str, principal: str) -> dict[str, str] | None:
    """The body for `/security/override` that would allow the query; `None` where no single override would."""
    if verdict.decision.allowed or not any(step.source == "override" for step in verdict.chain):
        return None
    grant = {"kind": kind, "pattern": pattern, "principal": principal}
    try:
        parse_grant({**grant, "reason": "a preview"}, principal)
    except InvalidRequestError:
        return None
    return grant


def _fields(body: Mapping[str, Any]) -> dict[str, str]:
    for name, value in body.items():
        if name not in _FIELDS:
            raise InvalidRequestError("unknown field", param=name[:100], hint=f"supported fields: {', '.join(_FIELDS)}")
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= _MAX_LENGTH):
            raise InvalidRequestError(f"'{name}' must be a string of 1 to {_MAX_LENGTH} characters", param=name)
    if body.get("source") not in (None, *TOOL_SOURCES):
        raise InvalidRequestError(f"'source' must be one of {', '.join(TOOL_SOURCES)}", param="source")
    return {name: value for name, value in body.items() if value is not None}
