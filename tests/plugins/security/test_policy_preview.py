"""`POST /security/preview` returns the decision for a query without side effects."""

import asyncio

import pytest
from agents import Agent, function_tool
from gateway_plugins.security import Security
from gateway_plugins.security.keys.key_ring import make_key
from gateway_plugins.security.overrides.grant_request import parse_grant
from gateway_plugins.security.policy_preview import _preview
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from gateway_core import (
    AgentEntry,
    Catalog,
    LoadError,
    Principal,
    RunContext,
    ToolInfo,
    ToolOrigin,
    hookimpl,
    mark_tool,
    origin_of,
    sdk_tool_name,
)
from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.testing import gateway_in_memory, script
from gateway_core.types import ServedAgent
from tests.plugins.security.support import key_table, plugin, settings

ANN, ROOT, TWO, THREE = (make_key() for _ in range(4))


def marked(name, **origin):
    tool = function_tool(lambda: "", name_override=sdk_tool_name(name), description_override="Does it.")
    if origin:
        mark_tool(tool, ToolOrigin(name=name, **origin))
    return tool


TOOLS = [
    marked("own"),
    marked("closed", source="gateway", open=False),
    marked("mail/send", source="gateway"),
    marked("web/search", source="mcp", server="web"),
]
AGENTS = {name: Agent(name="x", tools=TOOLS) for name in ("Open", "labs/A", "labs/B", "Secret")}
TABLE = {
    "keys": {
        "ann": key_table(ANN, agents=["Open", "labs/*"], deny_agents=["labs/B"]),
        "root": key_table(ROOT, admin=True),
        "bob": key_table(TWO),
        "bob2": key_table(THREE, principal="bob", agents=["Secret"]),
    },
    "namespaces": {"labs": {"deny_tools": ["gateway:mail/*"]}},
    "rules": {"agents": ["Open"], "deny_modules": ["labs/C"]},
}


class DecisionRecorder:
    made = ()

    def __init__(self, *_):
        DecisionRecorder.made = []

    @hookimpl
    def on_decision(self, made):
        DecisionRecorder.made.append(made)


def gateway(key=ROOT):
    return gateway_in_memory(
        AGENTS,
        model=script(),
        config={"plugins": {"security": TABLE}},
        plugins={"recorder": DecisionRecorder},
        api_key=key.text,
    )


async def ask(g, **body):
    answer = await g.http.post("/security/preview", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_preview_shows_every_evaluated_level():
    async with gateway() as g:
        result = await ask(g, principal="ann", agent="labs/B")
        assert result == {
            "object": "security.preview",
            "kind": "agent",
            "subject": "labs/B",
            "principal": "ann",
            "key": ANN.id,
            "allowed": False,
            "source": "key",
            "pattern": "labs/B",
            "reason": "denied by a rule",
            "override": None,
            "chain": [
                {"source": "override", "answer": "none", "place": None, "pattern": None, "reason": None},
                {
                    "source": "key",
                    "answer": "deny",
                    "place": "[plugins.security.keys.ann]",
                    "pattern": "labs/B",
                    "reason": "denied by a rule",
                },
            ],
            "override_that_would_allow": {"kind": "agent", "pattern": "labs/B", "principal": ANN.id},
        }
        allowed = await ask(g, key=THREE.id, agent="SECRET")
        assert (allowed["subject"], allowed["allowed"], allowed["pattern"]) == ("Secret", True, "Secret")
        assert allowed["override_that_would_allow"] is None


@pytest.mark.parametrize(
    ("body", "allowed", "source"),
    [
        ({"principal": "ann", "agent": "labs/A"}, True, "key"),
        ({"principal": "ann", "agent": "default/open"}, True, "key"),
        ({"principal": "ann", "agent": "not/yet/there"}, False, "key"),
        ({"principal": "nobody", "agent": "Open"}, True, "global"),
        ({"principal": "root", "agent": "Open"}, False, "admin"),
        ({"module": "labs/A"}, True, "default"),
        ({"module": "labs/c"}, False, "global"),
        ({"principal": "ann", "tool": "t"}, True, "default"),
        ({"principal": "ann", "tool": "t", "source": "gateway"}, True, "default"),
        ({"principal": "ann", "tool": "mail/send", "source": "gateway", "agent": "LABS/a"}, False, "namespace"),
        ({"principal": "ann", "tool": "mail/send", "source": "gateway", "agent": "Open"}, True, "default"),
        ({"principal": "ann", "agent": "labs/C"}, False, "global"),
        ({"principal": "ann", "tool": "closed", "agent": "Open"}, False, "default"),
        ({"principal": "ann", "tool": "closed", "agent": "Open", "source": "gateway"}, False, "default"),
        ({"principal": "ann", "tool": "closed", "agent": "Open", "source": "mcp"}, True, "default"),
    ],
)
async def test_queries(body, allowed, source):
    async with gateway() as g:
        result = await ask(g, **body)
        assert (result["allowed"], result["source"], result["chain"][-1]["source"]) == (allowed, source, source)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"principal": "ann"}, None),
        ({"principal": "ann", "agent": "Open", "module": "x"}, None),
        ({"principal": "ann", "tool": "t", "module": "x"}, None),
        ({"agent": "Open"}, "principal"),
        ({"key": "agw_nobody", "agent": "Open"}, "key"),
        ({"key": ANN.id, "principal": "bob", "agent": "Open"}, "principal"),
        ({"principal": "bob", "agent": "Open"}, "key"),
        ({"principal": "ann", "agent": 1}, "agent"),
        ({"principal": "ann", "agent": ""}, "agent"),
        ({"principal": "ann", "agent": "x" * 513}, "agent"),
        ({"principal": "ann", "agent": "Open", "why": "x"}, "why"),
        ({"principal": "ann", "tool": "t", "source": "x"}, "source"),
    ],
)
async def test_invalid_queries_are_rejected(body, param):
    async with gateway() as g:
        answer = await g.http.post("/security/preview", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (
            404 if body.get("key") == "agw_nobody" else 400,
            param,
        )


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 400), (b"x", 400), (b"[]", 400), (b'{"agent": "' + b"x" * 20_000 + b'"}', 413)]
)
async def test_bodies_that_are_not_json_objects_are_rejected(content, status):
    async with gateway() as g:
        headers = {"content-type": "application/json"}
        assert (await g.http.post("/security/preview", content=content, headers=headers)).status_code == status


async def test_the_preview_is_for_admins_only():
    async with gateway(ANN) as g:
        assert (await g.http.post("/security/preview", json={"principal": "ann", "agent": "Open"})).status_code == 403


async def test_the_preview_is_not_recorded_as_a_decision_and_has_no_side_effects():
    async with gateway() as g:
        before = (await g.http.get("/admin/plugins")).json(), (await g.http.get("/admin/agents")).json()
        DecisionRecorder.made.clear()
        await ask(g, principal="ann", agent="labs/B")
        # Only the access of the admin is a decision.
        assert [(m.kind, m.subject) for m in DecisionRecorder.made] == [("admin", "/security/preview")]
        assert ((await g.http.get("/admin/plugins")).json(), (await g.http.get("/admin/agents")).json()) == before


async def test_the_preview_equals_the_decision():
    async with gateway() as g:
        security = plugin(g)
        for key in (ANN, ROOT, TWO, THREE):
            principal = security._policy.keys.by_id[key.id].principal
            for agent in g.gateway.catalog.agents.values():
                result = await ask(g, key=key.id, agent=agent.id)
                decision = await security.authorize(principal, agent.entry)
                assert (result["allowed"], result["source"], result["pattern"]) == (
                    decision.allowed,
                    decision.source,
                    decision.pattern,
                )


def lists_of(*patterns):
    return st.lists(st.sampled_from(patterns), max_size=2, unique=True)


AGENT_LISTS = lists_of("Open", "labs/A", "labs/*", "**", "default/Open")
TOOL_LISTS = lists_of("own", "closed", "gateway:mail/send", "mail/*", "mcp:web/*", "web/search", "search", "gateway:**")
OWN_TOOLS = st.sampled_from(["allow", "refuse"])
IN_A_KEY = {"agents": AGENT_LISTS, "deny_agents": AGENT_LISTS, "tools": TOOL_LISTS, "deny_tools": TOOL_LISTS}
IN_A_TABLE = {**IN_A_KEY, "modules": AGENT_LISTS, "deny_modules": AGENT_LISTS, "native_tools": OWN_TOOLS}


def some(**fields):
    return st.fixed_dictionaries({}, optional=fields)


KEYS = st.one_of(
    st.just({}),
    some(**IN_A_KEY).map(lambda own: {"ann": key_table(ANN, **own), "root": key_table(ROOT, admin=True)}),
)
CONFIGS = some(
    keys=KEYS,
    namespaces=some(**{name: some(**IN_A_TABLE) for name in ("labs", "labs/A", "default")}),
    rules=some(**IN_A_TABLE),
    admin_keys_may_chat=st.booleans(),
)
ENTRIES = {name: AgentEntry(name, "x.py", "1", lambda: None) for name in ("Open", "labs/A")}
CATALOG = Catalog({n: ServedAgent(e, AgentRunnable(Agent(name="x", tools=TOOLS)), n) for n, e in ENTRIES.items()})
QUERIES = [
    {kind: name, **more}
    for name in ENTRIES
    for kind, more in [("module", {}), ("agent", {}), *[("agent", {"tool": str(t.name)}) for t in TOOLS]]
]


class ActualDecisions:
    """The decisions of the gateway itself."""

    def __init__(self, security, principal):
        self.security, self.principal = security, principal
        self.hooks = Hooks({"security": security})

    async def allows(self, asked):
        if "module" in asked:
            try:
                self.security.admit_agent(ENTRIES[asked["module"]])
            except LoadError:
                return False
            return True
        entry = ENTRIES[asked["agent"]]
        if "tool" not in asked:
            return (await self.hooks.authorize(self.principal, entry)).allowed
        [tool] = [t for t in TOOLS if t.name == sdk_tool_name(asked["tool"])]
        origin = origin_of(tool)
        info = ToolInfo(origin.name or tool.name, origin.source, entry.id, "x", origin.server, origin.open)
        return (await self.hooks.authorize_tool(RunContext("r", self.principal, entry.id), info)).allowed


@given(CONFIGS, st.sampled_from([None, ANN.id, ROOT.id]), st.sampled_from(QUERIES))
@of_hypothesis(max_examples=600, deadline=None)
def test_the_preview_equals_the_decision_for_any_settings_and_its_override_allows(table, key, asked):
    async def compare():
        security = Security(NullGateway(), settings(table))
        found = security._policy.keys.by_id.get(key)
        principal = found.principal if found else Principal("local", admin=True)
        who = {"key": key} if found else {"principal": "local"}
        actual = ActualDecisions(security, principal)
        query = {n: v.replace("__", "/") if n == "tool" else v for n, v in asked.items()}

        def preview():
            return _preview({**query, **who}, security._policy, security._rules, CATALOG)

        result = preview()
        assert result["allowed"] is await actual.allows(query)
        grant = result["override_that_would_allow"]
        if grant is not None:
            await security._parts.overrides.grant(parse_grant({**grant, "reason": "a test"}, "root"), "root")
            assert await actual.allows(query)
            assert preview()["allowed"]
        elif not result["allowed"]:
            # No override makes an admin key valid, and two refusals need two overrides.
            blocked = not security._rules.decide(_asked_module(query)).decision.allowed
            assert result["source"] == "admin" or (blocked and query.keys() == {"agent"})

    asyncio.run(compare())


def _asked_module(query):
    from gateway_plugins.security.access_query import AccessQuery

    name = query.get("agent") or query["module"]
    return AccessQuery("agent", name, "x").of_module


async def test_a_blocked_module_needs_a_module_override():
    async with gateway() as g:
        result = await ask(g, module="labs/C")
        assert result["override_that_would_allow"] == {"kind": "module", "pattern": "labs/C", "principal": "gateway"}
        result = await ask(g, principal="ann", agent="labs/C")
        assert result["override_that_would_allow"] == {"kind": "module", "pattern": "labs/C", "principal": "gateway"}
        # No single override is enough.
        result = await ask(g, principal="nobody", agent="labs/C")
        assert (result["allowed"], result["override_that_would_allow"]) == (False, None)


async def test_without_keys_agents_are_allowed_by_default():
    async with gateway_in_memory(AGENTS, config={"plugins": {"security": {"rules": {"deny_agents": ["Secret"]}}}}) as g:
        assert (await ask(g, principal="local", agent="Open"))["allowed"]
        assert not (await ask(g, principal="local", agent="Secret"))["allowed"]
