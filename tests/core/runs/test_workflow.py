"""Workflows as models: the answering run is streamed, intermediate steps are not, and the answer is determined."""

import asyncio
import linecache
import textwrap
import threading

import openai
import pytest

from gateway_core.catalog.workflow_analysis import TerminalRuns
from gateway_core.testing import gateway_in_memory
from tests.support.upstream import Answer, FakeUpstream, Request, scripted, words

EXPORT = """
from agents import Agent, ModelSettings, RunConfig, Runner, TResponseInputItem, trace
from openai import AsyncOpenAI
from pydantic import BaseModel

client = AsyncOpenAI()


class Classified(BaseModel):
    category: str


classifier = Agent(name="Classifier", instructions="Classify.", model="gpt-4.1", output_type=Classified)
answering = Agent(name="Answering", instructions="Answer.", model="gpt-4.1")
other = Agent(name="Other", instructions="Something else.")


class WorkflowInput(BaseModel):
    input_as_text: str
{fields}

async def run_workflow(workflow_input: WorkflowInput):
    with trace("New workflow"):
        workflow = workflow_input.model_dump()
        conversation_history: list[TResponseInputItem] = [
            {{"role": "user", "content": [{{"type": "input_text", "text": workflow["input_as_text"]}}]}}
        ]
        config = RunConfig(trace_metadata={{"__trace_source__": "agent-builder", "workflow_id": "wf_1"}})
        classified = await Runner.run(classifier, input=[*conversation_history], run_config=config)
        if classified.final_output.category == "question":
            result = await Runner.run(
                answering,
                input=[
                    *conversation_history
                ],
                run_config=RunConfig(trace_metadata={{"__trace_source__": "agent-builder"}})
            )
            {ending}
        else:
            return {{"output_text": "no question"}}
"""
RETURNS_TEXT = 'return {"output_text": result.final_output_as(str)}'


def answer(request: Request) -> object:
    """Answer the classifier with JSON, and other agents by the script."""
    if "response_format" in request.body:
        kind = "other" if "other" in request.user_text else "question"
        return Answer(('{"category": "', kind, '"}'))
    return scripted(request)


@pytest.fixture
def serve(tmp_path):
    def serve(upstream: FakeUpstream, *, ending: str = RETURNS_TEXT, fields: str = "", config=None, module=None):
        (tmp_path / "Flow").mkdir(exist_ok=True)
        (tmp_path / "Flow" / "agent.py").write_text(module or EXPORT.format(ending=ending, fields=fields))
        plugins = {"upstreams": {"fake": {"base_url": upstream.base_url, "default_model": "m"}}}
        return gateway_in_memory(folder=tmp_path, config={"plugins": plugins, **(config or {})})

    return serve


def chats(upstream):
    """The requests to the upstream without those that list models."""
    return [record for record in upstream.records if record.body]


async def ask(g, text, *, stream, history=(), **options):
    messages = [*history, {"role": "user", "content": text}]
    got = await g.openai.chat.completions.create(model="Flow", messages=messages, stream=stream, **options)
    if not stream:
        return got.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in got if chunk.choices])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (RETURNS_TEXT, "one two"),
        ("return result.final_output", "one two"),
        ("return result", "one two"),
        ("pass", "one two"),
        ('return {"output_text": "changed: " + result.final_output}', "changed: one two"),
        ('return {"rows": [1]}', '{"rows": [1]}'),
    ],
)
async def test_the_answer_is_the_return_value_or_the_text_of_the_last_run(serve, stream, ending, expected):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream, ending=ending) as g:
            text = await ask(g, "say: one two", stream=stream)
            assert text.endswith(expected)
            assert "category" not in text
            assert text.count("one two") <= 2
            assert await ask(g, "say: other", stream=stream) == "no question"
            assert g.ended[0][1].usage.requests == 2


async def test_the_answering_run_is_streamed(serve):
    more = threading.Event()

    def slow(request: Request) -> object:
        if "response_format" in request.body:
            return answer(request)
        return Answer(("first ", "second"), delay=0) if more.is_set() else Answer(words("first second"), delay=0.2)

    with FakeUpstream(slow) as upstream:
        async with serve(upstream) as g:
            stream = await g.openai.chat.completions.create(
                model="Flow", messages=[{"role": "user", "content": "x"}], stream=True
            )
            texts = [c.choices[0].delta.content async for c in stream if c.choices and c.choices[0].delta.content]
            assert texts == ["first", " second"]


async def test_a_disconnect_cancels_the_inner_run(serve):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream) as g:
            stream = await g.openai.chat.completions.create(
                model="Flow", messages=[{"role": "user", "content": "slow 0.05 100"}], stream=True
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
            await stream.close()
            assert upstream.records[-1].closed_early.wait(30)
            assert g.ended[-1][1].cancelled


async def test_five_concurrent_runs_are_isolated(serve):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream) as g:
            texts = await asyncio.gather(*(ask(g, f"say: only {number}", stream=True) for number in range(5)))
            assert texts == [f"only {number}" for number in range(5)]


async def test_earlier_turns_are_passed_unless_disabled(serve):
    history = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "indeed"}]
    with FakeUpstream(answer) as upstream:
        async with serve(upstream) as g:
            await ask(g, "say: x", stream=True, history=history)
            for record in chats(upstream):
                said = [m["content"] for m in record.body["messages"] if m["role"] != "system"]
                assert said[:2] == ["before", "indeed"]
        upstream.reset()
        async with serve(upstream, config={"runs": {"workflow_history": False}}) as g:
            await ask(g, "say: x", stream=True, history=history)
            assert "before" not in str([record.body for record in chats(upstream)])


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "auto"}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}
STREAMED = """
from agents import Agent, Runner
helper = Agent(name="h")


async def run_workflow(text):
    result = Runner.run_streamed(helper, text)
    async for event in result.stream_events():
        pass
    return result.final_output
"""
WITH_SESSION = """
from agents import Agent, Runner, SQLiteSession
helper = Agent(name="h")
session = SQLiteSession("x")


async def run_workflow(text):
    return (await Runner.run(helper, text, session=session)).final_output
"""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("module", ["EXPORT", "ADDED", "STREAMED", "WITH_SESSION"])
async def test_images_and_files_reach_the_first_run(serve, stream, module):
    source = None if module == "EXPORT" else globals()[module]
    parts = [{"type": "text", "text": "say: x"}, IMAGE, FILE]
    history = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "indeed"}]
    with FakeUpstream(answer) as upstream:
        async with serve(upstream, module=source) as g:
            assert (await ask(g, parts, stream=stream, history=history)).startswith("x")
        assert len(chats(upstream)) == (2 if module == "EXPORT" else 1)
        for record in chats(upstream):
            said = [message for message in record.body["messages"] if message["role"] != "system"]
            assert said[-1]["content"] == parts
            assert len(said) == (1 if module == "WITH_SESSION" else 3)


async def test_an_image_without_text(serve):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream, module=ADDED) as g:
            await ask(g, [IMAGE], stream=False)
        [record] = chats(upstream)
        assert IMAGE in record.body["messages"][-1]["content"]


async def test_a_header_names_attachments_that_no_run_received():
    async def run_workflow(text: str) -> str:
        return text

    body = {
        "model": "W",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, IMAGE, IMAGE, FILE]}],
    }
    async with gateway_in_memory({"W": run_workflow}) as g:
        answer = await g.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        assert answer.headers["x-agent-gateway-ignored-attachments"] == "file, image"


async def test_further_fields_come_from_metadata_and_missing_ones_are_named(serve):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream, fields="    region: str\n    tone: str = 'kind'\n") as g:
            assert await ask(g, "say: x", stream=False, metadata={"region": "eu", "unknown": "y"}) == "x"
            refused = await g.http.post(
                "/v1/chat/completions", json={"model": "Flow", "messages": [{"role": "user", "content": "x"}]}
            )
            assert refused.status_code == 400
            assert "workflow: region" in refused.json()["error"]["message"]


RUN = """
from agents import Agent, Runner
helper = Agent(name="h")


async def run(messages):
    result = await Runner.run(helper, messages)
    return result.final_output
"""
STREAM = """
from agents import Agent, Runner
helper = Agent(name="h")


async def stream(messages):
    yield "said: "
    result = Runner.run_streamed(helper, messages)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta
"""

YIELDED = """
from agents import Agent, Runner
helper = Agent(name="h")


async def stream(messages):
    result = await Runner.run(helper, messages)
    yield result.final_output
"""
ADDED = """
from agents import Agent, Runner
helper = Agent(name="h")


async def run_workflow(text):
    result = await Runner.run(helper, text)
    return f"{result.final_output} and three"
"""
# The steps are in a function that the workflow calls.
STEPS = """
from agents import Agent, Runner
helper = Agent(name="h")


async def steps(text):
    first = await Runner.run(helper, text)
    await Runner.run(helper, f"say: {first.final_output} three")


async def run_workflow(text):
    await steps(text)
"""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (RUN, "one two"),
        (STREAM, "said: one two"),
        (YIELDED, "one two"),
        (ADDED, "one two and three"),
        (STEPS, "one two three"),
    ],
    ids=["run", "stream", "yielded", "added", "steps"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_functions_and_generators_are_served(serve, module, expected, stream):
    with FakeUpstream(answer) as upstream:
        async with serve(upstream, module=module) as g:
            assert await ask(g, "say: one two", stream=stream) == expected


def terminal_calls(source: str) -> list[str]:
    """The arguments of the function's terminal calls."""
    namespace: dict[str, object] = {}
    text = "async def run_workflow(x):\n" + textwrap.indent(textwrap.dedent(source), "    ")
    name = f"<{abs(hash(text))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), namespace)
    function = namespace["run_workflow"]
    marked = [line for number, line in enumerate(text.splitlines(), 1) if number in TerminalRuns(function)._lines]
    return [line.split("Runner.run(")[1].split(")")[0] for line in marked if "Runner.run(" in line]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("return await Runner.run(a)", ["a"]),
        ("await Runner.run(a)\nawait Runner.run(b)", ["b"]),
        ("if x:\n    await Runner.run(a)\nelse:\n    await Runner.run(b)", ["a", "b"]),
        ("if x:\n    await Runner.run(a)\nawait Runner.run(b)", ["b"]),
        ("if x:\n    await Runner.run(a)\n    return 1\nawait Runner.run(b)", ["a", "b"]),
        ("r = await Runner.run(a)\nif r:\n    return await Runner.run(b)\nreturn r", ["b"]),
        ("while x:\n    await Runner.run(a)\nreturn 1", []),
        ("while x:\n    await Runner.run(a)\nawait Runner.run(b)", ["b"]),
        ("try:\n    await Runner.run(a)\nexcept ValueError:\n    await Runner.run(b)", ["a", "b"]),
        ("with x:\n    await Runner.run(a)\n    await Runner.run(b)", ["b"]),
        ("match x:\n    case 1:\n        await Runner.run(a)\n    case _:\n        await Runner.run(b)", ["a", "b"]),
        ("await gather(Runner.run(a), Runner.run(b))", []),
        ("await Runner.run(a)\nif x:\n    return 1\nelse:\n    return 2", ["a"]),
        ("await Runner.run(a)\nmatch x:\n    case 1:\n        return 1", ["a"]),
        ("return 1", []),
    ],
)
def test_terminal_runs_are_found_in_the_source(source, expected):
    assert terminal_calls(source) == expected


async def test_the_only_error_of_a_task_group_keeps_its_meaning(serve):
    module = """
import asyncio
from agents import Agent, Runner

agent = Agent(name="a")


async def run_workflow(text: str):
    async with asyncio.TaskGroup() as group:
        group.create_task(Runner.run(agent, text))
"""
    with FakeUpstream() as upstream:
        async with serve(upstream, module=module) as g:
            with pytest.raises(openai.APIStatusError) as caught:
                await ask(g, "fail 401", stream=False)
            assert caught.value.code == "upstream_auth_failed"
