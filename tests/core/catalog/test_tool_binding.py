"""Tools that the gateway offers: asked for at import time, bound when an agent is loaded, bound again at a reload."""

import asyncio

import pytest
from agents import Agent, RunConfig, Runner, UserError, function_tool
from agents.testing import ScriptedModel, function_call

from gateway_core import ToolOrigin, hookimpl, mark_tool, use_gateway_tool, use_gateway_tools
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.tools.references import tool_names
from tests.support.interpreter import run_python


def tool(name, answer, description="Does it."):
    @function_tool(name_override=name, description_override=description)
    async def made(text: str) -> str:
        return f"{answer} {text}"

    return made


class Offer:
    """A plugin class that offers the tools currently in its list."""

    def __init__(self, *tools):
        self.tools = list(tools)

    def plugin(self):
        offer = self

        class Plugin:
            def __init__(self, *_):
                pass

            @hookimpl
            def offer_tools(self):
                return list(offer.tools)

        return Plugin


async def ask(g, model, text="hi"):
    answer = await g.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


def sent(model, call=0):
    """The tools that were sent to the model."""
    return {tool.name: tool for tool in model.calls[call].tools if getattr(tool, "is_enabled", True) is True}


def output(model):
    return [
        i["output"] for i in model.calls[-1].input if isinstance(i, dict) and i.get("type") == "function_call_output"
    ]


def test_the_same_name_is_the_same_object_and_importing_needs_no_sdk(tmp_path):
    assert use_gateway_tool("x") is use_gateway_tool("x")
    assert use_gateway_tool("x") is not use_gateway_tool("x", rename="y")
    code = "import sys; from gateway_core import use_gateway_tool; print('agents' in sys.modules)"
    assert run_python(code, tmp_path).split() == ["False"]


async def test_outside_a_gateway_it_says_how_to_run_it():
    agent = Agent(name="x", tools=[use_gateway_tool("clock")])
    model = ScriptedModel([[function_call("clock", {}, call_id="1")]])
    with pytest.raises(UserError, match="agent-gateway serve"):
        await Runner.run(agent, "hi", run_config=RunConfig(model=model, tracing_disabled=True))


async def test_an_agent_calls_it_beside_its_own():
    own = tool("own", "own:")
    agent = Agent(
        name="x", tools=[own, use_gateway_tool("mail/send"), use_gateway_tool("b", rename="c", description="D")]
    )
    offer = Offer(tool("mail__send", "sent:"), tool("b", "b:"))
    model = script([call("own", text="1"), call("mail__send", text="2"), call("c", text="3")], "done")
    async with gateway_in_memory({"X": agent}, model=model, plugins={"offer": offer.plugin()}) as g:
        assert await ask(g, "X") == "done"
    assert output(model) == ["own: 1", "sent: 2", "b: 3"]
    assert sent(model)["c"].description == "D"
    assert sent(model)["mail__send"].description == "Does it."
    assert sent(model)["mail__send"].params_json_schema["required"] == ["text"]


async def test_an_unknown_name_is_a_diagnosis_with_a_near_miss_and_its_line(tmp_path):
    file = tmp_path / "Bad.py"
    file.write_text(
        "from agents import Agent\nfrom gateway_core import use_gateway_tool\n\n"
        "agent = Agent(name='Bad', tools=[use_gateway_tool('calculat')])\n"
    )
    offer = Offer(tool("calculate", ""))
    async with gateway_in_memory(folder=tmp_path, plugins={"offer": offer.plugin()}) as g:
        error = g.gateway.catalog.broken["Bad"].error
        assert error.code == "unknown_tool"
        assert str(error) == f"{file}:4: unknown gateway tool 'calculat' (did you mean 'calculate'?)"
        offer.tools.append(tool("calculat", ""))
        await g.gateway.reload()
        assert "Bad" in g.gateway.catalog.agents
        assert not g.gateway.catalog.broken


async def test_a_reload_gives_served_agents_the_tools_as_they_are_now():
    agent = Agent(name="x", tools=[use_gateway_tool("t")])
    offer = Offer(tool("t", "old:"))
    model = script(call("t", text="1"), "one", call("t", text="2"), "two", "three", call("t", text="4"), "four")
    async with gateway_in_memory({"X": agent}, model=model, plugins={"offer": offer.plugin()}) as g:
        assert await ask(g, "X") == "one"
        assert output(model) == ["old: 1"]
        [bound] = agent.tools
        offer.tools[:] = [tool("t", "new:", description="Newer.")]
        await g.gateway.reload()
        assert agent.tools == [bound]
        assert agent.tools[0] is bound  # replaced lists fail concurrent runs
        assert await ask(g, "X") == "two"
        assert output(model) == ["new: 2"]
        assert sent(model, -1)["t"].description == "Newer."
        offer.tools.clear()
        await g.gateway.reload()
        assert g.gateway.catalog.broken["X"].error.code == "unknown_tool"
        assert await ask(g, "X") == "three"
        assert sent(model, -1) == {}
        offer.tools.append(tool("t", "back:"))
        await g.gateway.reload()
        assert not g.gateway.catalog.broken
        assert await ask(g, "X") == "four"
        assert output(model) == ["back: 4"]


async def test_an_optional_tool_is_done_without_and_comes_when_it_is_there():
    agent = Agent(name="x", tools=[use_gateway_tool("t", optional=True)])
    offer = Offer()
    model = script("none", call("t", text="1"), "there")
    async with gateway_in_memory({"X": agent}, model=model, plugins={"offer": offer.plugin()}) as g:
        assert "the optional gateway tool 't' does not exist" in g.gateway.catalog.agents["X"].warnings[0]
        assert await ask(g, "X") == "none"
        assert sent(model) == {}
        offer.tools.append(tool("t", "it:"))
        await g.gateway.reload()
        assert await ask(g, "X") == "there"
        assert output(model) == ["it: 1"]


async def test_a_group_is_all_tools_of_it_also_later_ones(tmp_path):
    (tmp_path / "X.py").write_text(
        "from agents import Agent\nfrom gateway_core import use_gateway_tools\n"
        "agent = Agent(name='X', tools=[*use_gateway_tools('mail/*')])\n"
    )
    offer = Offer(tool("mail__send", ""), tool("mail__read", ""), tool("mailer__x", ""), tool("mail__a__b", ""))
    model = script("one", "two", "three")
    async with gateway_in_memory(folder=tmp_path, model=model, plugins={"offer": offer.plugin()}) as g:
        await ask(g, "X")
        assert set(sent(model)) == {"mail__send", "mail__read"}
        offer.tools[:2] = [tool("mail__send", ""), tool("mail__delete", "")]
        await g.gateway.reload()
        await ask(g, "X")
        assert set(sent(model, -1)) == {"mail__send", "mail__delete"}
        assert not g.gateway.catalog.broken


async def test_operators_add_tools_to_agents_that_they_do_not_own():
    agent = Agent(name="x", tools=[tool("own", "own:")])
    offer = Offer(tool("own", "gateway's:"), tool("a", "a:"), tool("g__b", "b:"))
    config = {"agents": {"x": {"tools": ["own", "a", "g/*"]}}}
    model = script([call("own", text="1"), call("a", text="2"), call("g__b", text="3")], "done")
    async with gateway_in_memory({"X": agent}, model=model, config=config, plugins={"offer": offer.plugin()}) as g:
        assert await ask(g, "X") == "done"
        listed = {t["name"]: t for t in (await g.http.get("/admin/tools")).json()["tools"]}
    assert output(model) == ["own: 1", "a: 2", "b: 3"]
    assert listed["a"]["agents"] == ["X"]
    assert listed["own"]["agents"] == []
    assert listed["a"]["source"] == "gateway"
    assert listed["a"]["parameters"]["required"] == ["text"]


async def test_an_unknown_tool_of_the_operators_names_his_table():
    config = {"agents": {"X": {"tools": ["nope"]}}}
    async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
        error = g.gateway.catalog.broken["X"].error
    assert error.source == "[agents.X] tools"


async def test_an_agent_that_is_made_at_run_time_gets_its_tools():
    async def run_workflow(question: str):
        model = script(call("t", text="1"), "made")
        agent = Agent(name="made", tools=[use_gateway_tool("t"), use_gateway_tool("nope")], model=model)
        result = await Runner.run(agent, question)
        seen.append((output(model), sorted(sent(model))))
        return result.final_output

    heard, seen = [], []

    class Listener:
        def __init__(self, *_):
            pass

        @hookimpl
        def on_error(self, error):
            heard.append((error.agent_id, error.code))

    offer = Offer(tool("t", "it:"))
    plugins = {"offer": offer.plugin(), "listener": Listener}
    async with gateway_in_memory({"W": run_workflow}, plugins=plugins) as g:
        assert await ask(g, "W") == "made"
    assert seen == [(["it: 1"], ["t"])]
    assert heard == [("W", "unknown_tool")]


async def test_concurrent_runs_of_an_agent_that_nobody_knew_before():
    """The SDK fails active runs of an agent when its list of tools is replaced."""
    both = asyncio.Event()
    arrived = []

    async def together(context, agent):
        arrived.append(1)
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return "Both are here."

    async def run_workflow(question: str):
        model = script("one", "two")
        agent = Agent(name="made", instructions=together, tools=[use_gateway_tool("t")], model=model)
        results = await asyncio.gather(Runner.run(agent, "1"), Runner.run(agent, "2"))
        return " ".join(sorted(result.final_output for result in results))

    async with gateway_in_memory({"W": run_workflow}, plugins={"offer": Offer(tool("t", "")).plugin()}) as g:
        assert await ask(g, "W")
        [(_, outcome)] = g.ended
    assert outcome.error is None


async def test_a_plugin_that_fails_costs_only_its_own_tools():
    class Failing:
        def __init__(self, *_):
            pass

        @hookimpl
        def offer_tools(self):
            raise OSError("canary")

    plugins = {"failing": Failing, "offer": Offer(tool("t", "")).plugin()}
    agent = Agent(name="x", tools=[use_gateway_tool("t")])
    async with gateway_in_memory({"X": agent}, plugins=plugins) as g:
        assert "X" in g.gateway.catalog.agents
        [error] = (await g.http.get("/admin/agents/errors")).json()["errors"]
    assert error["source"] == "plugin failing"


async def test_two_agents_share_a_name_and_are_bound_each():
    shared = use_gateway_tool("t")
    one, two = Agent(name="one", tools=[shared]), Agent(name="two", tools=[shared])
    seen = []

    class Wrapper:
        def __init__(self, *_):
            pass

        @hookimpl
        def wrap_tool(self, tool, entry):
            seen.append(entry.id)
            tool.description = f"{tool.description} For {entry.id}."

    offer = Offer(tool("t", "it:"))
    plugins = {"offer": offer.plugin(), "wrapper": Wrapper}
    async with gateway_in_memory({"One": one, "Two": two}, plugins=plugins):
        assert [a.tools[0].description for a in (one, two)] == ["Does it. For One.", "Does it. For Two."]
    assert seen == ["One", "Two"]
    assert offer.tools[0].description == "Does it."


async def test_a_marked_tool_keeps_its_origin():
    remote = tool("github__search", "")
    mark_tool(remote, ToolOrigin("mcp", server="github", open=False))
    async with gateway_in_memory({"X": Agent(name="x")}, plugins={"offer": Offer(remote).plugin()}) as g:
        [listed] = [t for t in g.gateway.tools() if t["name"] == "github/search"]
    assert (listed["source"], listed["server"], listed["open"]) == ("mcp", "github", False)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("mail/*", ["mail/read", "mail/send"]),
        ("mail__*", ["mail/read", "mail/send"]),
        ("mail_*", ["mail_legacy"]),
        ("Mail/S*", ["mail/send"]),
        ("**", ["mail/a/b", "mail/read", "mail/send", "mail_legacy", "mailer/send"]),
    ],
)
async def test_a_reference_by_pattern_binds_the_tools_that_match(pattern, expected):
    offered = [tool(name, "") for name in ("mail__send", "mail__read", "mailer__send", "mail_legacy", "mail__a__b")]
    agent = Agent(name="x", tools=[*use_gateway_tools(pattern)])
    config = {"plugins": {"gateway_tools": {"enabled": False}}}
    async with gateway_in_memory({"X": agent}, plugins={"offer": Offer(*offered).plugin()}, config=config):
        assert sorted(bound.name.replace("__", "/") for bound in agent.tools) == expected


@pytest.mark.parametrize("pattern", ["mail/", "", "a**"])
def test_a_malformed_pattern_is_rejected(pattern):
    with pytest.raises(ValueError, match="segment"):
        use_gateway_tools(pattern)


@pytest.mark.parametrize(
    ("name", "source", "server", "names"),
    [
        ("send", "sdk-native", None, ("send",)),
        ("mail/send", "gateway", None, ("mail/send", "mail__send")),
        ("calculate", "gateway", None, ("calculate",)),
        ("mail/send", "sdk-native", None, ("mail__send",)),
        ("web_search", "hosted", None, ("web_search",)),
        ("read", "mcp", "files", ("read", "files/read")),
        ("files/read", "mcp", "files", ("read", "files/read")),
        ("corp/weather/now", "mcp", "corp/weather", ("now", "corp/weather/now")),
        ("github/read", "mcp", "files", ("files/github/read",)),
        ("files/github/read", "mcp", "files", ("files/github/read",)),
        ("github__read", "mcp", "files", ("github__read", "files/github__read")),
    ],
)
def test_what_policies_may_call_a_tool(name, source, server, names):
    assert tool_names(name, source, server) == names
