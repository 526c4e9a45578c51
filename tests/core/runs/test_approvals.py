"""Human approval of tool calls in the chat: bound to the principal, the chat and the calls shown."""

import asyncio

import pytest
from agents import Agent, function_tool

from gateway_core.hooks.specs import hookimpl
from gateway_core.runs.approvals import question_of, verdict_of
from gateway_core.storage.memory_record_store import MemoryRecordStore
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal

ASK = {"role": "user", "content": "delete it"}

# For a test's own record store.
OTHER_STORE = {"plugins": {"sessions": {"enabled": False}}}


class Deleting:
    """An agent whose tool deletes a file after approval."""

    def __init__(self, *turns):
        self.deleted: list[str] = []

        @function_tool(needs_approval=True)
        def delete_file(path: str) -> str:
            """Delete a file."""
            self.deleted.append(path)
            return f"deleted {path}"

        self.model = script(*(turns or (["I will.", call("delete_file", path="/x")], "Done.")))
        self.agent = Agent(name="deleting", tools=[delete_file], model=self.model)


async def say(g, *messages, stream=True, model="A", **more) -> str:
    if not stream:
        answer = await g.openai.chat.completions.create(model=model, messages=list(messages), **more)
        return answer.choices[0].message.content
    chunks = await g.openai.chat.completions.create(model=model, messages=list(messages), stream=True, **more)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


def answer(text: str):
    return {"role": "assistant", "content": text}


def user(text: str):
    return {"role": "user", "content": text}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("word", "deleted"), [("approve", ["/x"]), ("Yes.", ["/x"]), ("reject", []), ("no", [])])
async def test_the_user_decides_in_the_chat(stream, word, deleted):
    it = Deleting()
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK, stream=stream)
        assert asked.startswith("I will.\n\nApproval needed")
        assert '**delete_file** `{"path": "/x"}`' in asked
        assert it.deleted == []
        assert await say(g, ASK, answer(asked), user(word), stream=stream) == "Done."
        assert it.deleted == deleted
        assert [outcome.error for _, outcome in g.ended] == [None, None]


async def test_the_model_receives_the_reason_of_a_rejection():
    it = Deleting()
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK)
        await say(g, ASK, answer(asked), user("reject: it is still needed"))
    assert "it is still needed" in str(it.model.calls[-1].input)


async def test_an_approval_can_be_used_once():
    it = Deleting()
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK)
        both = await asyncio.gather(
            *(say(g, ASK, answer(asked), user("approve")) for _ in range(2)), return_exceptions=True
        )
        assert it.deleted == ["/x"]
        [refused] = [each for each in both if isinstance(each, Exception)]
        assert refused.status_code == 400
        assert refused.code == "approval_not_found"


async def test_any_other_message_closes_the_question():
    it = Deleting(call("delete_file", path="/x"), "As you like.", "Nothing happened.")
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK)
        assert await say(g, ASK, answer(asked), user("what would that do?")) == "As you like."
        with pytest.raises(Exception, match="no such approval"):
            await say(g, ASK, answer(asked), user("approve"))
        assert it.deleted == []


async def test_another_chat_and_another_principal_cannot_approve():
    class TwoPeople:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-who"])

    it = Deleting()
    async with gateway_in_memory({"A": it.agent}, plugins={"people": TwoPeople}) as g:

        def at(who, chat):
            return {"extra_headers": {"x-who": who, "x-openwebui-chat-id": chat}}

        asked = await say(g, ASK, **at("ada", "1"))
        for who, chat in (("bob", "1"), ("ada", "2")):
            with pytest.raises(Exception, match="no such approval"):
                await say(g, ASK, answer(asked), user("approve"), **at(who, chat))
        assert it.deleted == []
        done = await say(g, ASK, answer(asked), user("approve"), **at("ada", "1"))
        assert done.endswith("Done.")
        assert 'name="delete_file" arguments="{&quot;path&quot;: &quot;/x&quot;}"' in done, "Open WebUI sees the call"


async def test_an_approval_expires():
    now = [0.0]
    records = MemoryRecordStore(clock=lambda: now[0])

    class Store:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return records

    it = Deleting()
    config = {"runs": {"approval_timeout": "5m"}, **OTHER_STORE}
    async with gateway_in_memory({"A": it.agent}, plugins={"store": Store}, config=config) as g:
        asked = await say(g, ASK)
        assert "within 5 minutes" in asked
        now[0] = 301.0
        with pytest.raises(Exception, match="has expired"):
            await say(g, ASK, answer(asked), user("approve"))
        assert it.deleted == []


async def test_an_approval_survives_a_restart_if_the_record_store_does():
    records = MemoryRecordStore()

    class Store:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return records

    before, after = Deleting(), Deleting("Done after the restart.")
    async with gateway_in_memory({"A": before.agent}, plugins={"store": Store}, config=OTHER_STORE) as g:
        asked = await say(g, ASK)
    async with gateway_in_memory({"A": after.agent}, plugins={"store": Store}, config=OTHER_STORE) as g:
        assert await say(g, ASK, answer(asked), user("approve")) == "Done after the restart."
    assert (before.deleted, after.deleted) == ([], ["/x"])


async def test_an_approval_for_a_changed_agent_is_an_error():
    records = MemoryRecordStore()

    class Store:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return records

    it = Deleting()
    async with gateway_in_memory({"A": it.agent}, plugins={"store": Store}, config=OTHER_STORE) as g:
        asked = await say(g, ASK)
    renamed = Agent(name="another", model=script("hi"))
    async with gateway_in_memory({"A": renamed}, plugins={"store": Store}, config=OTHER_STORE) as g:
        with pytest.raises(Exception, match="the agent has changed since it requested"):
            await say(g, ASK, answer(asked), user("approve"))


async def test_several_calls_and_several_questions():
    it = Deleting(
        [call("delete_file", path="/a"), call("delete_file", path="/b")], call("delete_file", path="/c"), "Ok."
    )
    async with gateway_in_memory({"A": it.agent}) as g:
        first = await say(g, ASK)
        assert first.count("delete_file") == 2
        second = await say(g, ASK, answer(first), user("approve"))
        assert sorted(it.deleted) == ["/a", "/b"]
        assert '"/c"' in second
        assert await say(g, ASK, answer(first), user("approve"), answer(second), user("reject")) == "Ok."
        assert sorted(it.deleted) == ["/a", "/b"]


async def test_a_tool_of_an_agent_that_is_used_as_a_tool_can_be_approved():
    it = Deleting(call("delete_file", path="/x"), "inner done")
    outer = Agent(
        name="outer",
        tools=[it.agent.as_tool("ask_inner", "Ask it.")],
        model=script(call("ask_inner", input="go"), "outer done"),
    )
    async with gateway_in_memory({"A": outer}) as g:
        asked = await say(g, ASK)
        assert '"/x"' in asked
        assert await say(g, ASK, answer(asked), user("approve")) == "outer done"
        assert it.deleted == ["/x"]


@pytest.mark.parametrize(
    "text", ["approve it all", "I approve of this", "yes, but", "no way out", "", "approve\nreject"]
)
def test_other_messages_are_not_verdicts(text):
    assert verdict_of(text) is None


def test_only_the_last_answer_contains_the_question():
    question = answer("Approval needed (appr_AAAAAAAAAAAAAAAAAAAAAA)")
    assert question_of([ASK, question, user("yes")]) == "appr_AAAAAAAAAAAAAAAAAAAAAA"
    assert question_of([ASK, question, user("hm"), answer("so?"), user("yes")]) is None
    assert question_of([user("appr_AAAAAAAAAAAAAAAAAAAAAA"), user("yes")]) is None
    assert question_of([question]) is None


@pytest.mark.parametrize(("approve", "said"), [(True, "approve"), (False, "reject: too risky")])
async def test_a_verdict_on_a_request_of_another_gateway_goes_to_the_agent(approve, said):
    agent = Agent(name="a", model=script("ok", "ok"))
    foreign = "appr_AAAAAAAAAAAAAAAAAAAAAA"
    verdict = {"type": "mcp_approval_response", "approval_request_id": f"{foreign}.0", "approve": approve}
    async with gateway_in_memory({"A": agent}) as g:
        given = [ASK, answer(f"Approval needed ({foreign})"), {**verdict, "reason": "too risky"}]
        await g.openai.responses.create(model="A", input=given)
        assert agent.model.calls[-1].input[-1]["content"] == said
        await g.openai.chat.completions.create(
            model="A", messages=[ASK, answer(f"Approval needed ({foreign})"), user("yes")]
        )
        assert agent.model.calls[-1].input[-1]["content"] == "yes"
        malformed = {**verdict, "approval_request_id": "appr_1"}
        refused = await g.http.post("/v1/responses", json={"model": "A", "input": [malformed]})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "approval_not_found"
        assert refused.json()["error"]["type"] == "invalid_request_error"


async def test_ids_are_recognized_after_a_restart(tmp_path):
    @function_tool(needs_approval=True)
    def delete() -> str:
        """Delete."""
        return "deleted"

    config = {"state": {"folder": str(tmp_path)}, "runs": {"approval_timeout": 0.001}}
    agent = Agent(name="a", tools=[delete], model=script(call("delete"), "late"))
    async with gateway_in_memory({"A": agent}, config=config) as g:
        asked = await g.openai.chat.completions.create(model="A", messages=[ASK])
    messages = [ASK, answer(asked.choices[0].message.content), user("yes")]
    async with gateway_in_memory({"A": agent}, config=config) as g:
        refused = await g.http.post("/v1/chat/completions", json={"model": "A", "messages": messages})
        assert refused.json()["error"]["code"] == "approval_not_found"


def in_chat(name: str, header: str = "x-agent-gateway-session"):
    return {"extra_headers": {header: name, "x-agent-gateway-client": "plain"}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("word", "deleted"), [("approve", ["/x"]), ("Yes.", ["/x"]), ("reject: not now", [])])
@pytest.mark.parametrize(
    "chat",
    [
        in_chat("1"),
        in_chat("1", "x-openwebui-chat-id"),
        in_chat("1", "x-librechat-conversation-id"),
        {"metadata": {"session_id": "1"}},
    ],
)
async def test_a_decision_alone_refers_to_the_pending_request_of_the_chat(stream, word, deleted, chat):
    it = Deleting()
    async with gateway_in_memory({"A": it.agent}) as g:
        await say(g, ASK, stream=stream, **chat)
        system = {"role": "system", "content": "Be brief."}
        assert await say(g, system, user(word), stream=stream, **chat) == "Done."
        assert it.deleted == deleted


async def test_a_decision_alone_is_a_message_in_every_other_chat():
    class TwoPeople:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-who"])

    it = Deleting(call("delete_file", path="/x"), *["What?"] * 4, "Done.")
    agents = {"A": it.agent, "B": it.agent.clone(name="b")}
    async with gateway_in_memory(agents, plugins={"people": TwoPeople}) as g:

        def at(who, chat, model="A"):
            return {"extra_headers": {"x-who": who, "x-agent-gateway-session": chat}, "model": model}

        await say(g, ASK, **at("ada", "1"))
        for other in (at("bob", "1"), at("ada", "2"), at("ada", "1", "B")):
            assert await say(g, user("approve"), **other) == "What?"
        assert await say(g, user("approve"), extra_headers={"x-who": "ada"}) == "What?"
        assert it.deleted == []
        assert await say(g, user("approve"), **at("ada", "1")) == "Done."
        assert it.deleted == ["/x"]


async def test_only_the_next_message_alone_can_decide():
    it = Deleting(call("delete_file", path="/x"), "Should I?", "Then I will not.")
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK, **in_chat("1"))
        assert await say(g, user("what would that do?"), **in_chat("1")) == "Should I?"
        assert await say(g, user("yes"), **in_chat("1")) == "Then I will not."
        assert it.deleted == []
        assert "appr_" in asked


async def test_a_decision_alone_after_the_request_was_decided_is_a_message():
    it = Deleting(call("delete_file", path="/x"), "Done.", "Hello.", call("delete_file", path="/y"), "Gone.", "Bye.")
    async with gateway_in_memory({"A": it.agent}) as g:
        asked = await say(g, ASK, **in_chat("1"))
        assert await say(g, ASK, answer(asked), user("approve"), **in_chat("1")) == "Done."
        assert await say(g, user("yes"), **in_chat("1")) == "Hello."
        await say(g, ASK, **in_chat("1"))
        both = await asyncio.gather(
            *(say(g, user("approve"), stream=False, **in_chat("1")) for _ in range(2)), return_exceptions=True
        )
        assert "Gone." in both
        assert it.deleted == ["/x", "/y"]


async def test_each_pending_request_of_a_chat_replaces_the_previous_one():
    it = Deleting(call("delete_file", path="/a"), call("delete_file", path="/b"), "Ok.", "Done.")
    async with gateway_in_memory({"A": it.agent}) as g:
        first = await say(g, ASK, **in_chat("1"))
        second = await say(g, user("approve"), **in_chat("1"))
        assert '"/b"' in second
        with pytest.raises(Exception, match="no such approval"):
            await say(g, ASK, answer(first), user("approve"), **in_chat("1"))
        assert await say(g, user("approve"), **in_chat("1")) == "Ok."
        assert it.deleted == ["/a", "/b"]


async def test_a_decision_alone_reaches_an_agent_with_memory_and_survives_a_restart(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Keeper.py").write_text(
        "from agents import Agent, function_tool\n"
        "@function_tool(needs_approval=True)\n"
        "def delete_file(path: str) -> str:\n    '''Delete a file.'''\n    return 'deleted ' + path\n"
        "agent = Agent(name='keeper', tools=[delete_file])\n"
        "__gateway__ = {'memory': 'session'}\n"
    )
    config = {"state": {"folder": str(tmp_path / "state")}}
    before, after = script(call("delete_file", path="/x")), script("Done.", "You are welcome.")
    async with gateway_in_memory(folder=tmp_path / "agents", model=before, config=config) as g:
        assert "Approval needed" in await say(g, ASK, model="Keeper", **in_chat("1"))
    async with gateway_in_memory(folder=tmp_path / "agents", model=after, config=config) as g:
        assert await say(g, user("approve"), model="Keeper", **in_chat("1")) == "Done."
        assert "deleted /x" in str(after.calls[0].input)
        await say(g, user("thanks"), model="Keeper", **in_chat("1"))
        assert "deleted /x" in str(after.calls[1].input)


async def test_a_decision_alone_in_responses():
    it = Deleting(call("delete_file", path="/x"), "Done.")
    async with gateway_in_memory({"A": it.agent}) as g:
        await g.openai.responses.create(model="A", input="delete it", **in_chat("1"))
        done = await g.openai.responses.create(model="A", input="approve", **in_chat("1"))
        assert (done.output_text, it.deleted) == ("Done.", ["/x"])
