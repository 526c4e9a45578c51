"""A run that reaches another served agent authorizes it for the same caller."""

import asyncio
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
from agents import Agent, Runner, function_tool
from gateway_plugins.security.keys.key_ring import make_key
from openai import APIError

from gateway_core import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from tests.plugins.security.support import key_table, plugin, settings

ANN, BOB = make_key(), make_key()
TABLE = {"keys": {"ann": key_table(ANN, agents=["First"]), "bob": key_table(BOB, agents=["First", "labs/Other"])}}


def other():
    return Agent(name="other", model=script("from the other"))


def by_handoff(target):
    return Agent(name="first", handoffs=[target], model=script(call("transfer_to_other"), "never"))


def as_tool(target):
    model = script(call("ask", input="x"), "it said so")
    return Agent(name="first", tools=[target.as_tool("ask", "Asks the other.")], model=model)


def as_tool_of_a_part(target):
    part = Agent(name="part", tools=[target.as_tool("ask", "Asks.")], model=script(call("ask", input="x"), "it said"))
    model = script(call("part", input="x"), "it said so")
    return Agent(name="first", tools=[part.as_tool("part", "A part of its own.")], model=model)


def from_a_workflow(target):
    async def run_workflow(question: str):
        return (await Runner.run(target, question)).final_output

    return run_workflow


def from_a_workflow_that_streams(target):
    async def run_workflow(question: str):
        result = Runner.run_streamed(target, question)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return run_workflow


def from_a_workflow_that_catches(target):
    async def run_workflow(question: str):
        try:
            return (await Runner.run(target, question)).final_output
        except Exception:
            raise ValueError("something else") from None

    return run_workflow


def from_a_tool_that_waits(target):
    """A synchronous tool runs the agent in its own thread."""

    @function_tool
    def ask() -> str:
        """Asks the other."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return str(Runner.run_sync(target, "x").final_output)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return Agent(name="first", tools=[ask], model=script(call("ask"), "it said so"))


WAYS = [
    by_handoff,
    as_tool,
    as_tool_of_a_part,
    from_a_workflow,
    from_a_workflow_that_streams,
    from_a_workflow_that_catches,
    from_a_tool_that_waits,
]


class Listener:
    """Records decisions on agents, and errors."""

    def __init__(self, *_):
        Listener.decided, Listener.errors = [], []

    @hookimpl
    def on_decision(self, made):
        if made.kind == "agent":
            Listener.decided.append((made.subject, made.principal.key, made.decision.allowed, made.request_id))

    @hookimpl
    def on_error(self, error):
        Listener.errors.append(error)


@asynccontextmanager
async def gateway(agents, key, table=TABLE):
    config = {"plugins": {"security": table}}
    async with gateway_in_memory(agents, plugins={"listener": Listener}, config=config, api_key=key.text) as g:
        yield g


async def ask(g, model="First", *, stream=False):
    messages = [{"role": "user", "content": "hi"}]
    answer = await g.openai.chat.completions.create(model=model, messages=messages, stream=stream)
    if not stream:
        return answer.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_without_access_to_the_other_agent_gets_403(way, stream):
    target = other()
    async with gateway({"First": way(target), "labs/Other": target}, ANN) as g:
        with pytest.raises(APIError) as caught:
            await ask(g, stream=stream)
        [(run, outcome)] = g.ended
        with pytest.raises(APIError) as direct:
            await ask(g, "labs/Other")
    assert not target.model.calls
    assert caught.value.code == direct.value.code == "permission_denied"
    # The error does not reveal the agent.
    assert "Other" not in str(caught.value)
    error, _ = Listener.errors
    assert (error.status, error.source, str(error.stage)) == (403, "agent labs/Other", "authorize")
    assert (error.agent_id, error.request_id, error.principal_id) == ("First", run.request_id, "ann")
    assert outcome.error is error
    assert Listener.decided[:2] == [
        ("First", ANN.id, True, run.request_id),
        ("labs/Other", ANN.id, False, run.request_id),
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_with_access_to_the_other_agent_gets_its_output(way):
    target = other()
    async with gateway({"First": way(target), "labs/Other": target}, BOB) as g:
        assert await ask(g) in ("from the other", "it said so")
    assert [made[:3] for made in Listener.decided] == [("First", BOB.id, True), ("labs/Other", BOB.id, True)]
    assert Listener.errors == []


async def test_agents_that_are_not_served_themselves_are_not_authorized():
    """Neither an agent that is not served separately, nor a handoff back to the served one, is authorized."""
    model = script(call("transfer_to_part"), call("transfer_to_first"), "back again")
    first = Agent(name="first", model=model)
    part = Agent(name="part", handoffs=[first], model=model)
    first.handoffs.append(part)
    async with gateway({"First": first}, ANN) as g:
        assert await ask(g) == "back again"
    assert [made[0] for made in Listener.decided] == ["First"]


async def test_an_agent_served_under_two_ids_is_allowed_if_one_of_them_is():
    target = other()
    agents = {"labs/Other": target, "Alias": target, "First": as_tool(target)}
    table = {"keys": {"ann": key_table(ANN, agents=["First", "Alias"])}}
    async with gateway(agents, ANN, table) as g:
        assert await ask(g) == "it said so"
    assert [made[:3:2] for made in Listener.decided] == [("First", True), ("labs/Other", False), ("Alias", True)]
    assert Listener.errors == []


async def test_a_blocked_module_is_not_reachable_through_another_agent():
    target = other()
    agents = {"First": from_a_workflow(target), "labs/Other": target}
    async with gateway(agents, BOB) as g:
        await plugin(g).reconfigure(settings({**TABLE, "rules": {"deny_modules": ["labs/**"]}}))
        with pytest.raises(APIError):
            await ask(g)
    assert not target.model.calls


async def test_after_a_reload_the_new_object_is_authorized():
    served = [Agent(name="other", model=script("from the other", "and again")) for _ in range(2)]
    reached = []
    module = ModuleType("other")
    module.build_agent = lambda: served[len(reached)]

    async def run_workflow(question: str):
        return (await Runner.run(served[1], question)).final_output

    async with gateway({"First": run_workflow, "labs/Other": module}, ANN) as g:
        assert await ask(g) == "from the other"  # not served yet
        reached.append(1)
        await g.gateway.reload("labs/Other")
        with pytest.raises(APIError) as caught:
            await ask(g)
    assert caught.value.code == "permission_denied"


async def test_an_approved_tool_is_not_called_after_access_to_its_agent_was_revoked():
    done = []

    @function_tool(needs_approval=True)
    def act() -> str:
        """Acts."""
        done.append(1)
        return "acted"

    model = script(call("transfer_to_other"), call("act"), "done")
    target = Agent(name="other", tools=[act], model=model)
    first = Agent(name="first", handoffs=[target], model=model)
    async with gateway({"First": first, "labs/Other": target}, BOB) as g:
        asked = await ask(g)
        await plugin(g).reconfigure(settings({"keys": {"bob": key_table(BOB, agents=["First"])}}))
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": asked},
            {"role": "user", "content": "approve"},
        ]
        with pytest.raises(APIError) as caught:
            await g.openai.chat.completions.create(model="First", messages=messages)
    assert caught.value.code == "permission_denied"
    assert done == []


@pytest.mark.parametrize("way", [by_handoff, as_tool, from_a_workflow])
async def test_tool_rules_of_the_other_agent_apply_in_it(way):
    """The same rules apply as for a direct request to the other agent."""
    called = []

    @function_tool
    def secret() -> str:
        """Tell a secret."""
        called.append(1)
        return "told"

    target = Agent(name="other", tools=[secret], model=script(call("secret"), "from the other"))
    table = {**TABLE, "namespaces": {"labs": {"deny_tools": ["secret"]}}}
    async with gateway({"First": way(target), "labs/Other": target}, BOB, table) as g:
        await ask(g)
    assert called == []
    assert [(error.code, error.agent_id) for error in Listener.errors] == [("tool_refused", "First")]


async def test_tool_rules_of_the_other_agent_do_not_apply_in_the_first():
    @function_tool
    def secret() -> str:
        """Tell a secret."""
        return "told"

    target = other()
    first = Agent(name="first", tools=[secret], handoffs=[target], model=script(call("secret"), "done"))
    table = {**TABLE, "namespaces": {"labs": {"deny_tools": ["secret"]}}}
    async with gateway({"First": first, "labs/Other": target}, BOB, table) as g:
        assert await ask(g) == "done"
    assert Listener.errors == []
