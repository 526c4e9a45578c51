"""`POST /security/preview`: would this be allowed, by which rule, and what was looked at?

It asks the rules themselves and changes nothing. Admins only: to everybody else it would tell what there is.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import asdict
from starlette.requests import Request
from starlette.responses import Response

from gateway_core import Catalog, InvalidRequestError, ToolOrigin, described, origin_of, tool_names
from gateway_plugins.security.access_query import GATEWAY, AccessQuery
from gateway_plugins.security.json_body import json_object, json_response
from gateway_plugins.security.overrides.grant_request import parse_grant
from gateway_plugins.security.policy.compiler import TOOL_SOURCES, Policy
from gateway_plugins.security.policy.evaluator import PolicyEvaluator, Verdict

_FIELDS = ("principal", "key", "agent", "module", "tool", "source", "server")
_LONGEST = 512

_QUESTION = {"type": "object", "properties": {name: {"type": "string", "minLength": 1} for name in _FIELDS}}


class Preview:
    """The endpoint.

    Args:
        current: Tells the policy and the rules that are in force.
        catalog: Tells the agents that are served.
    """

    def __init__(self, current: Callable[[], tuple[Policy, PolicyEvaluator]], catalog: Callable[[], Catalog]) -> None:
        self._current = current
        self._catalog = catalog

    @described("Would this be allowed, and by which rule?", takes=_QUESTION)
    async def answer(self, request: Request) -> Response:
        """One question, as JSON."""
        asked = _fields(await json_object(request))
        policy, rules = self._current()
        shown = _preview(asked, policy, rules, self._catalog())
        return json_response(shown)


def _preview(asked: Mapping[str, str], policy: Policy, rules: PolicyEvaluator, catalog: Catalog) -> dict[str, Any]:
    kinds = [kind for kind in ("module", "tool") if kind in asked] or ["agent"]
    subject = asked.get(kinds[0])
    if subject is None or len(kinds) > 1 or ("module" in asked and "agent" in asked):
        raise InvalidRequestError(
            "ask for one of 'agent', 'module' and 'tool'", hint="beside a tool, 'agent' says whose it is"
        )
    key, principal = _who(asked, policy, needed=kinds[0] != "module")
    if kinds[0] == "module":
        return _module(subject, rules)
    agent_id = asked.get("agent")
    if agent_id is not None:
        # Every other name of an agent means the agent.
        agent_id = catalog.resolve(agent_id) or agent_id
    namespace = _namespace(agent_id) if agent_id else "default"
    if kinds[0] == "agent":
        return _agent(AccessQuery("agent", agent_id or subject, principal, key, namespace), rules)
    origin = _origin(asked, agent_id, catalog)
    question = AccessQuery("tool", subject, principal, key, namespace, agent_id, origin.source, origin.server)
    verdict = rules.tool(question, is_open=origin.open)
    # As narrow as it can be: no other server's tool of this name.
    name = tool_names(subject, origin.source, origin.server)[-1]
    return _shown(question, verdict, _grant(verdict, "tool", f"{origin.source}:{name}", question.key or principal))


def _module(module_id: str, rules: PolicyEvaluator) -> dict[str, Any]:
    question = AccessQuery("module", module_id, GATEWAY, namespace=_namespace(module_id))
    verdict = rules.decide(question)
    return _shown(question, verdict, _grant(verdict, "module", module_id, GATEWAY))


def _agent(question: AccessQuery, rules: PolicyEvaluator) -> dict[str, Any]:
    verdict = rules.agent(question)
    if rules.decide(question.of_module).decision.allowed:
        grant = _grant(verdict, "agent", question.subject, question.key or question.principal)
    elif rules.agent_alone(question).decision.allowed:
        grant = _grant(verdict, "module", question.subject, GATEWAY)
    else:
        grant = None  # One override lifts one of two refusals.
    return _shown(question, verdict, grant)


def _origin(asked: Mapping[str, str], agent_id: str | None, catalog: Catalog) -> ToolOrigin:
    """Where a tool comes from: what was asked, filled up with what is known of a tool that an agent has."""
    source, server = asked.get("source"), asked.get("server")
    if source is not None and source not in TOOL_SOURCES:
        raise InvalidRequestError(f"'source' must be one of {', '.join(TOOL_SOURCES)}", param="source")
    for served in catalog.agents.values():
        if agent_id in (None, served.id):
            for tool in (tool for agent in served.runnable.agents for tool in agent.tools):
                origin = origin_of(tool)
                known = (origin.name or tool.name, origin.source, origin.server)
                if known == (asked["tool"], source or origin.source, server or origin.server):
                    return origin
    return ToolOrigin(cast(Any, source or "sdk-native"), server)


def _who(asked: Mapping[str, str], policy: Policy, *, needed: bool) -> tuple[str | None, str]:
    """The key that is asked for, and whose it is."""
    if (key_id := asked.get("key")) is not None:
        key = policy.keys.by_id.get(key_id)
        if key is None:
            raise InvalidRequestError("there is no key of this id", param="key", hint="GET /admin/plugins lists them")
        if asked.get("principal", key.principal.id) != key.principal.id:
            raise InvalidRequestError("the key is another principal's", param="principal")
        return key.id, key.principal.id
    principal = asked.get("principal")
    if principal is None:
        if needed:
            raise InvalidRequestError("'principal' or 'key' is required: who is it that asks?", param="principal")
        return None, "gateway"
    keys = [key.id for key in policy.keys.by_id.values() if key.principal.id == principal]
    if len(keys) > 1:
        raise InvalidRequestError(
            f"'{principal}' has several keys", param="key", hint=f"say which one: {', '.join(keys)}"
        )
    return (keys[0] if keys else None), principal


def _shown(question: AccessQuery, verdict: Verdict, grant: dict[str, str] | None) -> dict[str, Any]:
    decision = verdict.decision
    return {
        "object": "security.preview",
        "kind": question.kind,
        "subject": question.subject,
        "principal": question.principal,
        "key": question.key,
        "allowed": decision.allowed,
        "source": decision.source,
        "pattern": decision.pattern,
        "reason": decision.reason,
        "override": decision.override,
        "chain": [asdict(step) for step in verdict.chain],
        "override_that_would_allow": grant,
    }


def _grant(verdict: Verdict, kind: str, pattern: str, principal: str) -> dict[str, str] | None:
    """What to send to `/security/override` so that it would be allowed; nothing where no override would help."""
    if verdict.decision.allowed or not any(step.source == "override" for step in verdict.chain):
        return None
    grant = {"kind": kind, "pattern": pattern, "principal": principal}
    try:
        parse_grant({**grant, "reason": "a preview"}, principal)
    except InvalidRequestError:
        return None
    return grant


def _namespace(agent_id: str) -> str:
    return agent_id.rpartition("/")[0] or "default"


def _fields(body: Mapping[str, Any]) -> dict[str, str]:
    for name, value in body.items():
        if name not in _FIELDS:
            raise InvalidRequestError("there is no such field", param=name[:100], hint=f"known: {', '.join(_FIELDS)}")
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= _LONGEST):
            raise InvalidRequestError(f"'{name}' must be a string of 1 to {_LONGEST} characters", param=name)
    return {name: value for name, value in body.items() if value is not None}
