"""Third-party modules work unedited as models: streaming, tool calls, token counts.

Each module is served with an HTTP upstream and called by the official client, with and without streaming.
"""

import asyncio
import gc
import io
import json
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from attrs import evolve, frozen

from gateway_core.testing import GatewayInMemory, gateway_in_memory
from tests.support.upstream import Answer, Call, FakeUpstream, Handler, Record, Reply, Request, render, scripted, words

pytestmark = [
    # Agent Builder exports call `.final_output.json()`, which is deprecated in pydantic.
    pytest.mark.filterwarnings("ignore:The `json` method is deprecated"),
    # A module's own client is never closed; its connections are garbage-collected.
    pytest.mark.filterwarnings(r"ignore:Exception ignored in. <socket\.socket fd=\d+, family=2,"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <function _SelectorTransport.__del__"),
]

FOREIGN = Path(__file__).parents[2] / "fixtures" / "dropin_agents_foreign"
READS_NEW_F_STRINGS = sys.version_info >= (3, 12)
WAIT_SECONDS = 30.0


@frozen
class ChatResult:
    """The answer that a client received."""

    text: str
    reasoning: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


@frozen
class Served:
    """A gateway in front of an upstream."""

    gateway: GatewayInMemory
    upstream: FakeUpstream
    folder: Path
    stream: bool

    @property
    def records(self) -> list[Record]:
        """The requests that the upstream received, in order."""
        return [record for record in self.upstream.records if record.request.method == "POST"]

    def asked(self, instructions: str) -> list[Record]:
        """The requests of agents whose instructions contain this text."""
        return [record for record in self.records if instructions in system_of(record.request)]

    async def ask(self, model: str, messages: str | list[dict[str, Any]], **options: Any) -> ChatResult:
        """Request one chat completion with the official client."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        create = self.gateway.openai.chat.completions.create
        if not self.stream:
            answer = await create(model=model, messages=messages, **options)
            [choice] = answer.choices
            assert choice.message.tool_calls is None, "the agent's own tools are not the client's"
            reasoning = getattr(choice.message, "reasoning_content", None) or ""
            return chat_result(choice.message.content, reasoning, choice.finish_reason, answer.usage)
        chunks = [
            chunk
            async for chunk in await create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **options
            )
        ]
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert not any(choice.delta.tool_calls for choice in choices), "the agent's own tools are not the client's"
        text = "".join(choice.delta.content or "" for choice in choices)
        reasoning = "".join(getattr(choice.delta, "reasoning_content", None) or "" for choice in choices)
        return chat_result(text, reasoning, choices[-1].finish_reason, chunks[-1].usage)


def chat_result(text: str, reasoning: str, finish_reason: str | None, usage: Any) -> ChatResult:
    return ChatResult(text, reasoning, finish_reason, usage.prompt_tokens, usage.completion_tokens)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Whether the client requests a stream."""
    return bool(request.param)


@pytest.fixture
def drop_in(tmp_path: Path) -> Callable[..., Any]:
    """Copy one or several of the modules to a new folder, and serve them."""

    @asynccontextmanager
    async def serve(
        *names: str,
        stream: bool = False,
        handler: Handler = scripted,
        runs: Mapping[str, Any] | None = None,
        upstream: Mapping[str, Any] | None = None,
        agents: Mapping[str, Any] | None = None,
        leave_out: str = "",
        sound: bool = True,
    ) -> AsyncIterator[Served]:
        root = tmp_path / "agents"
        for name in names:
            copy(name, root, leave_out)
        with FakeUpstream(handler) as fake:
            table = {"base_url": fake.base_url, "max_retries": 0, **(upstream or {})}
            config = {"plugins": {"upstreams": {"fake": table}}, "runs": dict(runs or {}), "agents": dict(agents or {})}
            async with gateway_in_memory(folder=root, config=config) as gateway:
                broken = gateway.gateway.catalog.broken
                if sound:
                    assert not broken, "; ".join(str(agent.error) for agent in broken.values())
                    assert sorted(gateway.gateway.catalog.agents) == sorted(names)
                yield Served(gateway, fake, root, stream)
            await _close_clients()

    return serve


async def _close_clients() -> None:
    """Close the clients that modules created, while their event loop still runs."""
    gc.collect()
    for client in [each for each in gc.get_objects() if type(each) is openai.AsyncOpenAI]:
        await client.close()
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def copy(name: str, root: Path, leave_out: str = "") -> None:
    source = FOREIGN / name
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", *([leave_out] if leave_out else []))
        shutil.copytree(source, root / name, ignore=ignore)
    else:
        target = root / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.with_suffix(".py"), target)


def agents_say(answers: Mapping[str, str | Answer]) -> Handler:
    """Return answers selected by text in the agent's instructions; for other agents, those of `scripted`."""

    def handle(request: Request) -> Answer | Reply:
        found = next((answer for phrase, answer in answers.items() if phrase in system_of(request)), None)
        if found is None:
            return scripted(request)
        return Answer(words(found)) if isinstance(found, str) else found

    return handle


def system_of(request: Request) -> str:
    return " ".join(str(item.get("content")) for item in request.items if item.get("role") == "system")


def pause_after(first: str, gate: threading.Event, reply: Reply) -> Reply:
    """Return the same stream, paused after its word `first` until the gate is open."""

    def parts() -> Iterator[Any]:
        for part in reply.parts:
            yield part
            if isinstance(part, bytes) and f'"content":"{first}"'.encode() in part:
                yield gate

    return evolve(reply, parts=parts())


def prompt_tokens(records: list[Record]) -> int:
    """Number of input tokens that the upstream reports: 10 per message."""
    return sum(10 * len(record.request.items) for record in records)


def offered(record: Record) -> set[str]:
    """The names of the functions that a model was offered."""
    return {tool["function"]["name"] for tool in record.body.get("tools", ())}


# Workflows that Agent Builder exports.


async def test_an_export_with_one_agent_answers_although_it_returns_nothing(drop_in, stream):
    async with drop_in("Helpdesk", stream=stream) as served:
        answer = await served.ask("Helpdesk", "say: have you restarted it")
        assert answer.text == "have you restarted it"
        assert answer.finish_reason == "stop"
        [record] = served.records
        assert record.body["model"] == "test-model"
        assert record.body["messages"][-1]["content"][0]["text"] == "say: have you restarted it"
        assert (record.body["temperature"], record.body["max_tokens"]) == (1, 2048)
        assert (answer.prompt_tokens, answer.completion_tokens) == (20, 4)


async def test_an_exports_tools_are_called(drop_in, stream):
    async with drop_in("Helpdesk", stream=stream) as served:
        answer = await served.ask("Helpdesk", 'call ticket_status {"ticket_id": "T7"}')
        assert answer.text == "tool said: ticket T7 is open"
        assert [offered(record) for record in served.records] == [{"ticket_status"}] * 2
        assert answer.prompt_tokens == prompt_tokens(served.records) == 60
        assert answer.completion_tokens == 6


EARLIER = [
    {"role": "user", "content": "my name is Ann"},
    {"role": "assistant", "content": "hello Ann"},
    {"role": "user", "content": "say: what is it"},
]


@pytest.mark.parametrize(
    ("history", "roles"), [(True, ["system", "user", "assistant", "user"]), (False, ["system", "user"])]
)
async def test_earlier_turns_reach_a_workflow_that_takes_only_text(drop_in, stream, history, roles):
    async with drop_in("Helpdesk", stream=stream, runs={"workflow_history": history}) as served:
        assert (await served.ask("Helpdesk", EARLIER)).text == "what is it"
        [record] = served.records
        assert [message["role"] for message in record.body["messages"]] == roles


def returns_desk(classification: str, **more: str | Answer) -> Handler:
    return agents_say(
        {
            "Sort the message": json.dumps({"classification": classification, "reason": "step-classified"}),
            "stands alone": '{"question": "step-rewritten"}',
            **more,
        }
    )


async def test_an_exports_branch_answers_with_its_last_agents_text_and_its_return_value(drop_in, stream):
    handler = returns_desk("return_item", **{"Offer a replacement": "take a new one"})
    async with drop_in("Returns", stream=stream, handler=handler) as served:
        answer = await served.ask("Returns", "it is broken")
        # No other run can follow the agent's run, so its text is sent before the export's return value.
        assert answer.text == "take a new one\n\nYour return is on the way."
        assert len(served.records) == 2
        assert answer.prompt_tokens == prompt_tokens(served.records)
        [asked] = served.asked("Offer a replacement")
        assert offered(asked) == {"find_order"}
        assert "step-classified" in json.dumps(asked.body["messages"])


async def test_an_exports_branch_without_an_agent_answers_with_its_return_value(drop_in, stream):
    async with drop_in("Returns", stream=stream, handler=returns_desk("cancel")) as served:
        answer = await served.ask("Returns", "forget it")
        assert answer.text == "Your order is cancelled."
        assert len(served.records) == 1
        assert answer.prompt_tokens == prompt_tokens(served.records)


async def test_an_exports_branch_without_a_return_value_answers_with_its_last_agents_text(drop_in, stream):
    handler = returns_desk("information", **{"Answer questions about the shop": "we open at nine"})
    async with drop_in("Returns", stream=stream, handler=handler) as served:
        answer = await served.ask("Returns", "when do you open")
        assert answer.text == "we open at nine"
        assert [record.body.get("response_format") is not None for record in served.records] == [True, True, False]
        assert answer.prompt_tokens == prompt_tokens(served.records)
        [asked] = served.asked("Answer questions about the shop")
        assert asked.body["messages"][-1]["content"][0]["text"] == "step-rewritten"


async def test_a_tool_in_an_exports_branch_is_called(drop_in, stream):
    async with drop_in("Returns", stream=stream, handler=returns_desk("return_item")) as served:
        answer = await served.ask("Returns", 'call find_order {"order_id": "9"}')
        assert answer.text == "tool said: order 9 was delivered\n\nYour return is on the way."
        assert len(served.asked("Offer a replacement")) == 2


async def test_steps_of_a_workflow_are_sent_as_reasoning(drop_in):
    handler = returns_desk("information", **{"Answer questions about the shop": "we open at nine"})
    async with drop_in("Returns", stream=True, handler=handler) as served:
        answer = await served.ask("Returns", "when do you open")
        assert answer.text == "we open at nine"
        assert "step-classified" in answer.reasoning
        assert "step-rewritten" in answer.reasoning


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_an_export_with_guardrails_and_hosted_tools_answers_on_any_upstream(drop_in, stream, api):
    handler = agents_say(
        {
            "Say yes or no": "no",
            "Collect what is known": "step-collected",
            "Write the brief": "they make boats",
        }
    )
    async with drop_in("Brief", stream=stream, handler=handler, upstream={"api": api}) as served:
        answer = await served.ask("Brief", "who is Acme")
        assert answer.text == "they make boats"
        guard, *rest = served.records
        assert "Say yes or no" in system_of(guard.request)
        # The guardrail has its own client, so the SDK does not count its tokens.
        assert answer.prompt_tokens == prompt_tokens(rest)
        assert answer.completion_tokens == 1 + 3
        kinds = [[tool["type"] for tool in record.body.get("tools") or ()] for record in rest]
        if api == "chat":
            assert kinds == [[], []], "an upstream without hosted tools is not sent any"
        else:
            assert kinds[0][1:] == ["file_search", "code_interpreter", "mcp"]
            assert kinds[0][0].startswith("web_search")


async def test_removed_hosted_tools_are_logged_once(drop_in, caplog):
    handler = agents_say({"Say yes or no": "no", "Collect": "x", "Write": "y"})
    async with drop_in("Brief", handler=handler) as served:
        await served.ask("Brief", "who is Acme")
        await served.ask("Brief", "who is Acme")
        # One warning for each kind of tool, for both agents together.
        warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "Brief" in r.getMessage()]
        for kind in ("web_search", "file_search", "code_interpreter"):
            assert len([text for text in warnings if kind in text]) == 1, warnings


async def test_an_exports_guardrail_stops_it_before_its_agents(drop_in, stream):
    handler = agents_say({"Say yes or no": "yes"})
    async with drop_in("Brief", stream=stream, handler=handler) as served:
        answer = await served.ask("Brief", "something forbidden")
        assert json.loads(answer.text) == {"failed": ["Off Topic"]}
        assert len(served.records) == 1
        assert (answer.prompt_tokens, answer.completion_tokens) == (0, 0)


async def test_the_diagnosis_of_missing_guardrails_names_the_package_to_install(drop_in):
    async with drop_in("Brief", leave_out="guardrails", sound=False) as served:
        error = served.gateway.gateway.catalog.broken["Brief"].error
        assert error.code == "dependency"
        assert "'guardrails" in str(error)
        # On the package index, the module's name is that of another project.
        assert "pip install openai-guardrails" in str(error)
        assert (error.line, "from guardrails.runtime" in error.source_line) == (4, True)


async def test_an_export_with_newer_syntax_answers_or_names_the_required_python(drop_in, stream):
    async with drop_in("Pep701", stream=stream, sound=READS_NEW_F_STRINGS) as served:
        if not READS_NEW_F_STRINGS:
            error = served.gateway.gateway.catalog.broken["Pep701"].error
            assert (error.code, error.source_line) == ("syntax", '"text": f"Announce: {workflow["input_as_text"]}"')
            assert "Python 3.12" in str(error)
            return
        answer = await served.ask("Pep701", "the launch")
        assert answer.text == "Announce: the launch"
        assert system_of(served.records[0].request) == "Write for customers."


async def test_further_fields_of_a_workflows_input_come_from_the_requests_metadata(drop_in, stream):
    async with drop_in("Plan", stream=stream) as served:
        answer = await served.ask("Plan", "which plan", metadata={"tenure_months": "18"})
        assert answer.text == "which plan (basic, 18 months)"
        with pytest.raises(openai.BadRequestError, match="tenure_months") as caught:
            await served.ask("Plan", "which plan")
        assert caught.value.param == "metadata"
        assert "current_plan" not in str(caught.value)
        with pytest.raises(openai.BadRequestError):
            await served.ask("Plan", "which plan", metadata={"tenure_months": "many"})
        assert len(served.records) == 1


# Streaming.

LIVE = {
    "Helpdesk": agents_say({}),
    "Returns": returns_desk("information", **{"Answer questions about the shop": "first second"}),
    "Brief": agents_say({"Say yes or no": "no", "Collect": "step-collected"}),
    "summarise": agents_say({"Outline": "step-outlined", "Summarise": "first second"}),
    "narrate": agents_say({}),
    "remembering": agents_say({}),
    "airline": agents_say({}),
    "translations": agents_say({}),
    "own_model": agents_say({}),
}


@pytest.mark.parametrize("name", LIVE)
async def test_the_first_token_arrives_before_the_last_is_generated(drop_in, name):
    gate = threading.Event()

    def handler(request: Request) -> Answer | Reply:
        answer = LIVE[name](request)
        reply = render(request, answer) if isinstance(answer, Answer) else answer
        return pause_after("first", gate, reply)

    async with drop_in(name, handler=handler) as served:
        text = ""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await served.gateway.openai.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": "say: first second"}], stream=True
                )
                async for chunk in answer:
                    text += chunk.choices[0].delta.content or ""
                    assert gate.is_set() or "second" not in text
                    if "first" in text:
                        gate.set()
        finally:
            gate.set()
        assert "first second" in text
        assert "step-" not in text


async def test_a_disconnect_stops_the_agents_of_a_workflow(drop_in):
    async with drop_in("Helpdesk") as served:
        answer = await served.gateway.openai.chat.completions.create(
            model="Helpdesk", messages=[{"role": "user", "content": "endless"}], stream=True
        )
        async for chunk in answer:
            if chunk.choices[0].delta.content:
                break
        await answer.close()
        [record] = served.records
        assert await asyncio.to_thread(record.closed_early.wait, WAIT_SECONDS)


async def test_concurrent_answers_of_a_workflow_are_isolated(drop_in):
    async with drop_in("Helpdesk", stream=True) as served:
        texts = [" ".join(f"word{number}x{i}" for i in range(20)) for number in range(5)]
        answers = await asyncio.gather(*(served.ask("Helpdesk", f"say: {text}") for text in texts))
        assert [answer.text for answer in answers] == texts
        assert {answer.completion_tokens for answer in answers} == {20}


# Agents in the styles of the SDK's documentation.


BOOK_A_SEAT = (
    'call transfer_to_seat_booking_agent {} then call update_seat {"confirmation_number": "C1", "new_seat": "7A"}'
)


async def test_a_triage_agent_hands_off(drop_in, stream):
    async with drop_in("airline", stream=stream) as served:
        answer = await served.ask("airline", BOOK_A_SEAT)
        assert answer.text.startswith("tool said: ")
        assert "Seat 7A on FLT-" in answer.text
        assert len(served.asked("You delegate")) == 1
        assert len(served.asked("You change seats")) == 2
        assert offered(served.records[0]) == {"transfer_to_faq_agent", "transfer_to_seat_booking_agent"}
        assert offered(served.records[1]) == {"update_seat", "transfer_to_triage_agent"}
        assert answer.prompt_tokens == prompt_tokens(served.records)
        # 'tool said: Seat 7A on FLT-123'
        assert answer.completion_tokens == 6


async def test_agents_as_tools_count_tokens_and_send_no_text(drop_in, stream):
    handler = agents_say({"to Spanish": "hola mundo", "to French": "bonjour le monde"})
    async with drop_in("translations", stream=stream, handler=handler) as served:
        call = 'call translate_to_spanish {"input": "hello"} call translate_to_french {"input": "hello"}'
        answer = await served.ask("translations", call)
        assert answer.text == "tool said: hola mundo; bonjour le monde"
        assert len(served.records) == 4
        assert answer.prompt_tokens == prompt_tokens(served.records)
        assert answer.completion_tokens == 2 + 3 + 7


async def test_the_authors_context_type_is_created(drop_in, stream):
    async with drop_in("labs/Account", stream=stream) as served:
        answer = await served.ask("labs/Account", 'call remember_name {"name": "Ann"}')
        assert answer.text == "tool said: hello Ann"
        assert [system_of(record.request) for record in served.records] == [
            "You are Account. The customer is unknown, on the free plan.",
            "You are Account. The customer is Ann, on the free plan.",
        ]
        again = await served.ask("labs/Account", "say: hi")
        assert again.text == "hi"
        assert "The customer is unknown" in system_of(served.records[-1].request), "nothing is left of another run"
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 4)


async def test_a_module_builds_its_own_context(drop_in, stream):
    async with drop_in("Tenant", stream=stream) as served:
        answer = await served.ask("Tenant", "call whoami {}", extra_headers={"x-request-id": "mine-7"})
        assert answer.text.endswith(" in mine-7")
        principal = served.gateway.ended[0][0].principal.id
        assert answer.text == f"tool said: {principal} in mine-7"
        assert system_of(served.records[0].request) == f"You serve {principal}."
        assert answer.prompt_tokens == prompt_tokens(served.records)


async def test_structured_output_is_sent_as_json(drop_in, stream):
    event = {"name": "Regatta", "day": "2026-06-01", "participants": ["Ann", "Bo"]}
    async with drop_in("appointments", stream=stream, handler=agents_say({"": json.dumps(event)})) as served:
        answer = await served.ask("appointments", "the regatta is on the first of June")
        assert json.loads(answer.text) == event
        [record] = served.records
        assert record.body["response_format"]["json_schema"]["schema"]["required"] == ["name", "day", "participants"]
        assert answer.completion_tokens == len(words(json.dumps(event)))


async def test_hooks_on_agents_are_called(drop_in, stream, capsys):
    async with drop_in("hooked", stream=stream) as served:
        answer = await served.ask("hooked", 'call transfer_to_multiply_agent {} then call double {"x": 21}')
        assert answer.text == "tool said: 42"
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("###")] == [
            "### (Start Agent) 1: Start Agent started",
            "### (Start Agent) 2: Start Agent handed off to Multiply Agent",
            "### (Multiply Agent) 1: Multiply Agent started",
            "### (Multiply Agent) 2: Multiply Agent started tool double",
            "### (Multiply Agent) 3: Multiply Agent ended tool double with 42",
            "### (Multiply Agent) 4: Multiply Agent ended",
        ]
        assert len(served.records) == 3
        assert answer.prompt_tokens == prompt_tokens(served.records)


async def test_disabled_tools_are_not_offered(drop_in, stream):
    async with drop_in("flags", stream=stream) as served:
        answer = await served.ask("flags", 'call read_entry {"key": "k"}')
        assert answer.text == "tool said: value of k"
        assert [offered(record) for record in served.records] == [{"read_entry"}] * 2
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 5)


async def test_an_input_guardrail_that_asks_an_agent_stops_the_run(drop_in, stream):
    refused = '{"is_homework": false, "reasoning": "step-checked"}'
    async with drop_in("homework", stream=stream, handler=agents_say({"Check if": refused})) as served:
        answer = await served.ask("homework", "say: gossip")
        assert (answer.text, answer.finish_reason) == ("I can't help with that.", "content_filter")


async def test_the_text_of_an_input_guardrail_is_not_in_the_answer(drop_in, stream):
    fine = '{"is_homework": true, "reasoning": "step-checked"}'
    handoff = Answer(calls=(Call("transfer_to_history_tutor"),))
    handler = agents_say({"Check if": fine, "You determine": handoff})
    async with drop_in("homework", stream=stream, handler=handler) as served:
        answer = await served.ask("homework", "say: it was Washington")
        assert (answer.text, answer.finish_reason) == ("it was Washington", "stop")
        assert len(served.records) == 3
        assert answer.prompt_tokens == prompt_tokens(served.records)
        assert answer.completion_tokens == len(words(fine)) + 3


async def test_a_tool_may_stream_another_agent(drop_in, stream):
    handler = agents_say({"Write a draft": "a quiet draft"})
    async with drop_in("drafting", stream=stream, handler=handler) as served:
        answer = await served.ask("drafting", 'call draft {"topic": "rain"}')
        assert answer.text == "tool said: A QUIET DRAFT"
        [drafted] = served.asked("Write a draft")
        assert drafted.request.streamed
        assert answer.prompt_tokens == prompt_tokens(served.records)
        assert answer.completion_tokens == 3 + 5


# Functions, factories, packages.


async def test_a_function_takes_the_conversation(drop_in, stream):
    handler = agents_say({"Outline the conversation": "step-outlined"})
    async with drop_in("summarise", stream=stream, handler=handler) as served:
        answer = await served.ask("summarise", EARLIER)
        assert answer.text == "say: what is it / step-outlined".removeprefix("say: ")
        outline, summary = served.records
        assert [message["role"] for message in outline.body["messages"]] == ["system", "user", "assistant", "user"]
        assert len(summary.request.items) == 2
        assert answer.prompt_tokens == prompt_tokens(served.records) == 60
        assert answer.completion_tokens == 1 + 5


async def test_a_generator_streams_its_text(drop_in, stream):
    async with drop_in("narrate", stream=stream) as served:
        answer = await served.ask("narrate", "say: there was a boat.")
        assert answer.text == "Once: there was a boat. The end."
        assert (answer.prompt_tokens, answer.completion_tokens) == (20, 4)


async def test_a_factory_builds_an_agent_that_uses_other_agents(drop_in, stream):
    handler = agents_say({"You assign work": Answer(calls=(Call("to_politics"),))})
    async with drop_in("Newsroom", stream=stream, handler=handler) as served:
        answer = await served.ask("Newsroom", "say: the vote is tomorrow")
        assert answer.text == "the vote is tomorrow"
        assert offered(served.records[0]) == {"edit", "transfer_to_sports", "to_politics"}
        assert system_of(served.records[1].request) == "You write about Politics."
        assert offered(served.records[1]) == {"transfer_to_editor"}
        assert answer.prompt_tokens == prompt_tokens(served.records)


async def test_a_package_is_served_from_its_init_file(drop_in, stream):
    async with drop_in("Packaged", stream=stream) as served:
        answer = await served.ask("Packaged", 'call lookup {"word": "skerry"}')
        assert answer.text == "tool said: a small rocky island"
        assert served.gateway.gateway.catalog.agents["Packaged"].runnable.agent.name == "Packaged"
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 6)


# Modules with side effects during their import.


@pytest.fixture
def script_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variable that the script sets in the environment after the test."""
    monkeypatch.setenv("SCRIPT_REGION", "")
    monkeypatch.delenv("SCRIPT_REGION")


@pytest.mark.usefixtures("script_region")
async def test_process_wide_settings_of_a_script_do_not_affect_other_agents(drop_in, stream):
    async with drop_in("settings_at_import", "own_model", "airline", stream=stream) as served:
        assert os.environ["OPENAI_BASE_URL"] == served.upstream.base_url
        answer = await served.ask("settings_at_import", "call region {}")
        assert answer.text == "tool said: north", "its own variable is still set when its tool runs"
        assert (await served.ask("own_model", "say: unharmed")).text == "unharmed"
        assert (await served.ask("airline", "say: unharmed")).text == "unharmed"
        assert {record.request.headers["authorization"] for record in served.records} == {"Bearer none"}
        assert {record.request.path for record in served.records} == {"/v1/chat/completions"}
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 3)
        assert any(
            "OPENAI_API_KEY" in text for text in served.gateway.gateway.catalog.agents["settings_at_import"].warnings
        )


async def test_an_agent_uses_its_authors_model_object(drop_in, stream):
    async with drop_in("own_model", stream=stream) as served:
        answer = await served.ask("own_model", 'call get_weather {"city": "Oslo"}')
        assert answer.text == "tool said: The weather in Oslo is sunny."
        assert [record.body["model"] for record in served.records] == ["my-own-model"] * 2
        assert answer.prompt_tokens == prompt_tokens(served.records) == 60
        assert answer.completion_tokens == 8


async def test_an_agents_own_session_is_used_without_duplicate_messages(drop_in, stream):
    async with drop_in("remembering", stream=stream) as served:
        assert (await served.ask("remembering", "say: hello Ann")).text == "hello Ann"
        chat = [
            {"role": "user", "content": "say: hello Ann"},
            {"role": "assistant", "content": "hello Ann"},
            {"role": "user", "content": "say: you are Ann"},
        ]
        answer = await served.ask("remembering", chat)
        assert answer.text == "you are Ann"
        messages = served.records[-1].body["messages"]
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
        assert answer.completion_tokens == 3


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `reading_room` logs its setup and teardown."""
    file = tmp_path / "log"
    monkeypatch.setenv("READING_ROOM_LOG", str(file))
    return file


async def test_setup_runs_once_before_the_runs_and_teardown_after_them(drop_in, stream, log):
    async with drop_in("reading_room", stream=stream) as served:
        answer = await served.ask("reading_room", 'call read {"key": "greeting"}')
        assert answer.text == "tool said: god dag"
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 4)
        assert log.read_text().split() == ["setup"]
        await served.gateway.gateway.reload()
        assert log.read_text().split() == ["setup"], "an unchanged module stays open"
    assert log.read_text().split() == ["setup", "teardown"]


async def test_a_changed_module_is_set_up_again_and_the_old_one_torn_down(drop_in, log):
    async with drop_in("reading_room") as served:
        file = served.folder / "reading_room.py"
        file.write_text(file.read_text().replace("god dag", "god kveld"))
        await served.gateway.gateway.reload()
        assert (await served.ask("reading_room", 'call read {"key": "greeting"}')).text == "tool said: god kveld"
    assert sorted(log.read_text().split()) == ["setup", "setup", "teardown", "teardown"]


async def test_an_mcp_server_on_an_agent_is_connected_and_its_tools_are_called(drop_in, stream):
    async with drop_in("Calculator", stream=stream) as served:
        answer = await served.ask("Calculator", 'call add {"a": 2, "b": 3}')
        assert answer.text == "tool said: 5"
        assert offered(served.records[0]) == {"add", "process_id"}
        assert (answer.prompt_tokens, answer.completion_tokens) == (60, 3)


@pytest.mark.parametrize("module", ["Calculator", "Relisting"])
async def test_a_dead_mcp_server_is_restarted(drop_in, stream, module):
    async with drop_in(module, stream=stream) as served:
        first = await server_process(served, module)
        os.kill(first, signal.SIGKILL)
        await ended(first)
        call = 'call add {"a": 2, "b": 3}'
        answer = await served.ask(module, call)
        if module == "Calculator" and answer.text != "tool said: 5":
            # Its list of tools is cached, so a tool call is the first to detect the loss; tool calls are not retried.
            answer = await served.ask(module, call)
        assert answer.text == "tool said: 5"
        assert await server_process(served, module) != first


async def test_an_mcp_server_is_stopped_with_the_gateway(drop_in):
    async with drop_in("Calculator") as served:
        process = await server_process(served)
    await ended(process)


async def server_process(served: Served, module: str = "Calculator") -> int:
    """The process id of the MCP server."""
    return int((await served.ask(module, "call process_id {}")).text.removeprefix("tool said: "))


async def ended(process: int) -> None:
    """Wait until a process has ended."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], WAIT_SECONDS)
    finally:
        os.close(descriptor)
    assert readable, f"process {process} has not ended"


@pytest.mark.parametrize(
    ("name", "line", "call", "said"),
    [
        ("haiku", 5, "say: calls itself", "calls itself"),
        ("script", 20, 'call get_weather {"city": "Oslo"}', "tool said: Oslo is sunny"),
        ("prints_answers", 12, "say: hola", "hola"),
        ("own_call", 14, "say: here", "here"),
        ("chat_loop", 5, "say: you say", "you say"),
    ],
)
async def test_a_script_that_runs_its_agent_when_it_is_imported_is_served(
    drop_in, stream, name, line, call, said, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    async with drop_in(name, stream=stream) as served:
        assert served.records == [], "a run at import fails at once"
        [note] = served.gateway.gateway.catalog.agents[name].warnings
        assert note.startswith(f"{served.folder / name}.py:{line}: ")
        assert "move this statement under `if __name__ == '__main__':`" in note
        assert "the lines below it were not executed" in note
        answer = await served.ask(name, call)
        assert answer.text == said
        assert answer.prompt_tokens == prompt_tokens(served.records)


async def test_a_script_whose_agents_follow_its_run_is_diagnosed(tmp_path):
    (tmp_path / "early.py").write_text(EARLY_RUN)
    async with gateway_in_memory(folder=tmp_path) as g:
        error = g.gateway.catalog.broken["early"].error
        assert (error.message, error.line) == ("the module runs an agent when it is imported", 7)
        assert error.hint == "move this statement under `if __name__ == '__main__':`"
    moved = EARLY_RUN.replace("print(", "if __name__ == '__main__':\n    print(")
    (tmp_path / "early.py").write_text(moved)
    async with gateway_in_memory(folder=tmp_path) as g:
        assert list(g.gateway.catalog.agents) == ["early"]


EARLY_RUN = """from agents import Agent, Runner

NAME = "Early"



print(Runner.run_sync(Agent(name=NAME), "hello"))
agent = Agent(name=NAME)
"""


async def test_a_script_that_catches_the_failure_of_its_run_is_served_with_a_note(tmp_path):
    text = EARLY_RUN.replace("print(", "try:\n    print(").replace(
        "agent =", "except Exception as e: print(e)\nagent ="
    )
    (tmp_path / "early.py").write_text(text)
    async with gateway_in_memory(folder=tmp_path) as g:
        [note] = g.gateway.catalog.agents["early"].warnings
        assert note.startswith("importing it runs an agent, which fails")


async def test_other_failures_of_a_module_do_not_serve_a_part_of_it(tmp_path):
    (tmp_path / "half.py").write_text("from agents import Agent\nagent = Agent(name='a')\nundefined_name\n")
    async with gateway_in_memory(folder=tmp_path) as g:
        assert "NameError" in g.gateway.catalog.broken["half"].error.message


async def test_a_module_that_waits_for_input_does_not_read_the_terminal(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    copy("chat_loop", tmp_path)
    copy("airline", tmp_path)
    with os.fdopen(reading) as terminal, os.fdopen(writing, "w"):
        monkeypatch.setattr(sys, "stdin", terminal)
        async with gateway_in_memory(folder=tmp_path) as g:
            [note] = g.gateway.catalog.agents["chat_loop"].warnings
            assert note.startswith(f"{tmp_path / 'chat_loop.py'}:5: the module waits for input() when it is imported")
            assert sorted(g.gateway.catalog.agents) == ["airline", "chat_loop"]


# Scripts, whose own code makes and runs their agents.


PREVIOUS = [
    {"role": "user", "content": "say: earlier"},
    {"role": "assistant", "content": "earlier"},
]


@pytest.mark.parametrize(
    ("name", "instructions"),
    [("limericks", "limericks"), ("jokes", "tell jokes"), ("tutor", "teach arithmetic")],
)
async def test_the_main_function_of_a_script_answers_the_chat(drop_in, stream, name, instructions):
    async with drop_in(name, stream=stream) as served:
        message = {"role": "user", "content": "say: two words"}
        answer = await served.ask(name, [*PREVIOUS, message])
        assert (answer.text, answer.reasoning) == ("two words", "")
        [record] = served.records
        assert instructions in system_of(record.request)
        assert [item["content"] for item in record.request.items[1:]] == ["say: earlier", "earlier", "say: two words"]
        catalog = served.gateway.gateway.catalog
        assert catalog.agents[name].export == "main()"
        assert "takes the user's message" in catalog.agents[name].warnings[0]


@pytest.mark.parametrize("name", ["limericks", "jokes", "tutor"])
async def test_concurrent_requests_to_a_script_are_isolated(drop_in, stream, name):
    async with drop_in(name, stream=stream) as served:
        texts = [" ".join(f"word{number}x{i}" for i in range(20)) for number in range(5)]
        answers = await asyncio.gather(*(served.ask(name, f"say: {text}") for text in texts))
        assert [answer.text for answer in answers] == texts


async def test_a_tool_of_a_scripts_agent_is_called(drop_in, stream):
    async with drop_in("tutor", stream=stream) as served:
        assert (await served.ask("tutor", 'call square {"number": 7}')).text == "tool said: 49"


async def test_a_script_with_several_runs_answers_with_the_last(drop_in, stream):
    async with drop_in("essay", stream=stream, handler=agents_say({"Write an outline": "first second"})) as served:
        answer = await served.ask("essay", "trees")
        assert answer.text == "Outline: first second"
        assert answer.reasoning == "Outline: first second", "the step, by its agent's name"
        assert served.records[0].request.user_text == "trees"


async def test_a_script_opens_its_mcp_server_for_each_request(drop_in, stream):
    async with drop_in("Sums", stream=stream) as served:
        assert (await served.ask("Sums", 'call add {"a": 2, "b": 3}')).text == "tool said: 5"
        await ended(await server_process(served, "Sums"))


async def test_a_disconnect_stops_the_thread_of_a_script(drop_in):
    async with drop_in("tutor") as served:
        create = served.gateway.openai.chat.completions.create
        answer = await create(model="tutor", messages=[{"role": "user", "content": "endless"}], stream=True)
        async for chunk in answer:
            if chunk.choices[0].delta.content:
                break
        await answer.close()
        [record] = served.records
        assert await asyncio.to_thread(record.closed_early.wait, WAIT_SECONDS)


async def test_several_agents_of_equal_rank_are_served_each(drop_in, stream):
    async with drop_in("greeters", stream=stream, sound=False) as served:
        assert sorted(served.gateway.gateway.catalog.agents) == ["greeters/english", "greeters/german"]
        assert (await served.ask("greeters/german", "say: Hallo")).text == "Hallo"
        assert "in German" in system_of(served.records[0].request)
        with pytest.raises(openai.NotFoundError, match="'greeters/english', 'greeters/german'"):
            await served.ask("greeters", "say: x")


async def test_an_operator_chooses_what_a_module_serves(drop_in, stream):
    agents = {"greeters": {"entry": "german"}, "Newspaper": {"entry": "Editor.run"}}
    async with drop_in("greeters", "Newspaper", stream=stream, agents=agents) as served:
        await served.ask("greeters", "say: Hallo")
        assert "in German" in system_of(served.records[0].request)
        assert (await served.ask("Newspaper", "trees")).text == "trees: Topic: trees"


# All modules together.


@pytest.mark.usefixtures("script_region")
async def test_all_modules_are_served_together(tmp_path, monkeypatch):
    root = tmp_path / "agents"
    shutil.copytree(FOREIGN, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    unreadable = set() if READS_NEW_F_STRINGS else {"Pep701"}
    with FakeUpstream() as fake:
        config = {"plugins": {"upstreams": {"fake": {"base_url": fake.base_url}}}}
        async with gateway_in_memory(folder=root, config=config) as g:
            assert set(g.gateway.catalog.broken) == {"Newspaper", *unreadable}
            assert len(g.gateway.catalog.agents) >= 31
            assert os.environ["OPENAI_API_KEY"] == "none"
            agents = dict(g.gateway.catalog.agents)
            catalog = await g.gateway.reload()
            assert dict(catalog.agents) == agents, "unchanged modules are not loaded again"
            listed = [model.id async for model in await g.openai.models.list()]
            assert sorted(listed) == sorted(agents)
