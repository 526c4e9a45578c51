"""`POST /security/preview` says what would be decided, and decides nothing."""

import pytest
from agents import Agent
from gateway_plugins.security.keys import make_key

from gateway_core import hookimpl
from gateway_core.testing import gateway_in_memory, script
from tests.plugins.security.support import key_table, plugin

ANN, ROOT, TWO, THREE = (make_key() for _ in range(4))
AGENTS = {name: Agent(name="x") for name in ("Open", "labs/A", "labs/B", "Secret")}
TABLE = {
    "keys": {
        "ann": key_table(ANN, agents=["Open", "labs/*"], deny_agents=["labs/B"]),
        "root": key_table(ROOT, admin=True),
        "bob": key_table(TWO),
        "bob2": key_table(THREE, principal="bob", agents=["Secret"]),
    },
    "namespaces": {"labs": {"deny_tools": ["gateway:mail/*"]}},
    "rules": {"agents": ["Open"], "deny_modules": ["labs/B"]},
}


class Heard:
    made = ()

    def __init__(self, *_):
        Heard.made = []

    @hookimpl
    def on_decision(self, made):
        Heard.made.append(made)


def gateway(key=ROOT):
    return gateway_in_memory(
        AGENTS,
        model=script(),
        config={"plugins": {"security": TABLE}},
        plugins={"heard": Heard},
        api_key=key.text,
    )


async def ask(g, **body):
    answer = await g.http.post("/security/preview", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_tells_the_whole_way_to_the_decision():
    async with gateway() as g:
        told = await ask(g, principal="ann", agent="labs/B")
        assert told == {
            "object": "security.preview",
            "kind": "agent",
            "subject": "labs/B",
            "principal": "ann",
            "key": ANN.id,
            "allowed": False,
            "source": "key",
            "pattern": "labs/B",
            "reason": "a rule denies it",
            "override": None,
            "chain": [
                {"source": "override", "answer": "none", "place": None, "pattern": None, "reason": None},
                {
                    "source": "key",
                    "answer": "deny",
                    "place": "[plugins.security.keys.ann]",
                    "pattern": "labs/B",
                    "reason": "a rule denies it",
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
        ({"module": "labs/b"}, False, "global"),
        ({"principal": "ann", "tool": "t"}, True, "default"),
        ({"principal": "ann", "tool": "t", "source": "gateway"}, False, "default"),
        ({"principal": "ann", "tool": "mail/send", "source": "gateway", "agent": "LABS/a"}, False, "namespace"),
        ({"principal": "ann", "tool": "mail/send", "source": "gateway", "agent": "Open"}, False, "default"),
    ],
)
async def test_questions(body, allowed, source):
    async with gateway() as g:
        told = await ask(g, **body)
        assert (told["allowed"], told["source"], told["chain"][-1]["source"]) == (allowed, source, source)


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
async def test_what_is_no_question_is_refused(body, param):
    async with gateway() as g:
        answer = await g.http.post("/security/preview", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 400), (b"x", 400), (b"[]", 400), (b'{"agent": "' + b"x" * 20_000 + b'"}', 413)]
)
async def test_what_is_no_json_object_is_refused(content, status):
    async with gateway() as g:
        headers = {"content-type": "application/json"}
        assert (await g.http.post("/security/preview", content=content, headers=headers)).status_code == status


async def test_only_admins_may_ask():
    async with gateway(ANN) as g:
        assert (await g.http.post("/security/preview", json={"principal": "ann", "agent": "Open"})).status_code == 403


async def test_it_counts_as_no_decision_and_changes_nothing():
    async with gateway() as g:
        before = (await g.http.get("/admin/plugins")).json(), (await g.http.get("/admin/agents")).json()
        Heard.made.clear()
        await ask(g, principal="ann", agent="labs/B")
        # That an admin opened the page is one.
        assert [(m.kind, m.subject) for m in Heard.made] == [("admin", "/security/preview")]
        assert ((await g.http.get("/admin/plugins")).json(), (await g.http.get("/admin/agents")).json()) == before


async def test_it_is_the_decision():
    async with gateway() as g:
        security = plugin(g)
        for key in (ANN, ROOT, TWO, THREE):
            principal = security._policy.keys.by_id[key.id].principal
            for agent in g.gateway.catalog.agents.values():
                told = await ask(g, key=key.id, agent=agent.id)
                decision = await security.authorize(principal, agent.entry)
                assert (told["allowed"], told["source"], told["pattern"]) == (
                    decision.allowed,
                    decision.source,
                    decision.pattern,
                )
