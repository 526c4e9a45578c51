"""Every tool of the SDK, in a run through the gateway and in a run of the SDK alone: both send and say the same.

The model is a real HTTP server that speaks the Responses API or Chat Completions.
"""

import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    AsyncComputer,
    CodeInterpreterTool,
    ComputerTool,
    CustomTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    OpenAIResponsesModel,
    ProgrammaticToolCallingTool,
    RunConfig,
    Runner,
    ShellTool,
    SQLiteSession,
    ToolOutputFileContent,
    ToolOutputImage,
    ToolOutputText,
    ToolSearchTool,
    WebSearchTool,
    function_tool,
    tool_namespace,
)
from agents.editor import ApplyPatchResult
from agents.extensions.memory import EncryptedSession, SQLAlchemySession
from openai import AsyncOpenAI

from gateway_core.testing import gateway_in_memory
from tests.support.upstream import Answer, Call, FakeUpstream, items_reply, message_item, words

USER = [{"role": "user", "content": "hi"}]
BOTH = pytest.mark.parametrize("stream", [False, True])
PNG = "iVBORw0KGgo="
CITED = {"type": "url_citation", "start_index": 4, "end_index": 8, "title": "A page", "url": "https://example.org/a"}


@function_tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def add_numbers(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


class Editor:
    async def create_file(self, operation):
        return ApplyPatchResult(output="created")

    async def update_file(self, operation):
        return ApplyPatchResult(output="updated")

    async def delete_file(self, operation):
        return ApplyPatchResult(output="deleted")


class Screen(AsyncComputer):
    environment = "browser"
    dimensions = (10, 10)

    async def screenshot(self):
        return PNG

    async def click(self, x, y, button):
        return None

    async def double_click(self, x, y):
        return None

    async def scroll(self, x, y, scroll_x, scroll_y):
        return None

    async def type(self, text):
        return None

    async def wait(self):
        return None

    async def move(self, x, y):
        return None

    async def keypress(self, keys):
        return None

    async def drag(self, path):
        return None


async def run_command(request):
    return "ran it"


async def transform(context, text):
    return f"got {text}"


def mcp(approval):
    return HostedMCPTool(
        tool_config={
            "type": "mcp",
            "server_label": "docs",
            "server_url": "https://mcp.example.org",
            "require_approval": approval,
        }
    )


@function_tool(defer_loading=True)
def rates(currency: str) -> str:
    """Exchange rates."""
    return f"rates of {currency}"


NAMESPACE = tool_namespace(name="bank", description="Bank tools.", tools=[rates])
SEARCHED = {"type": "search", "query": "news", "queries": ["news"], "sources": [{"type": "url", "url": CITED["url"]}]}
PATCH = {"type": "update_file", "path": "a.py", "diff": "@@\n-one\n+two"}
CALLS = {
    "web_search": (
        [WebSearchTool()],
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": SEARCHED},
    ),
    "file_search": (
        [FileSearchTool(vector_store_ids=["vs_1"], include_search_results=True)],
        {
            "type": "file_search_call",
            "id": "fs_1",
            "status": "completed",
            "queries": ["terms"],
            "results": [{"file_id": "f", "filename": "terms.md", "text": "Two years.", "score": 0.9}],
        },
    ),
    "code_interpreter": (
        [CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": {"type": "auto"}})],
        {
            "type": "code_interpreter_call",
            "id": "ci_1",
            "status": "completed",
            "container_id": "c",
            "code": "print(1)",
            "outputs": [{"type": "logs", "logs": "1"}],
        },
    ),
    "image_generation": (
        [ImageGenerationTool(tool_config={"type": "image_generation"})],
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PNG},
    ),
    "hosted_mcp": (
        [mcp("never")],
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "server_label": "docs",
            "name": "read",
            "arguments": '{"page": 1}',
            "output": "A page.",
            "status": "completed",
        },
    ),
    "hosted_shell": (
        [ShellTool(environment={"type": "container_auto"})],
        {
            "type": "shell_call",
            "id": "sh_1",
            "call_id": "call_sh",
            "status": "completed",
            "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
            "environment": None,
        },
        {
            "type": "shell_call_output",
            "id": "sho_1",
            "call_id": "call_sh",
            "status": "completed",
            "max_output_length": None,
            "output": [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
    ),
    "tool_search": (
        [ToolSearchTool(), *NAMESPACE],
        {
            "type": "tool_search_call",
            "id": "ts_1",
            "call_id": None,
            "execution": "server",
            "arguments": {"paths": ["bank"]},
            "status": "completed",
        },
        {
            "type": "tool_search_output",
            "id": "tso_1",
            "call_id": None,
            "execution": "server",
            "status": "completed",
            "tools": [],
        },
    ),
}
HERE = {
    "shell": (
        [ShellTool(executor=run_command)],
        {
            "type": "shell_call",
            "id": "sh_1",
            "call_id": "call_sh",
            "status": "completed",
            "action": {"commands": ["ls -l"], "timeout_ms": None, "max_output_length": None},
            "environment": None,
        },
    ),
    "apply_patch": (
        [ApplyPatchTool(editor=Editor())],
        {"type": "apply_patch_call", "id": "ap_1", "call_id": "call_ap", "status": "completed", "operation": PATCH},
    ),
    "custom": (
        [CustomTool(name="shout", description="Shout.", on_invoke_tool=transform)],
        {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_ct", "name": "shout", "input": "free text"},
    ),
    "computer": (
        [ComputerTool(computer=Screen())],
        {
            "type": "computer_call",
            "id": "cu_1",
            "call_id": "call_cu",
            "status": "completed",
            "action": {"type": "screenshot"},
            "pending_safety_checks": [],
        },
    ),
    "local_shell": (
        [LocalShellTool(executor=run_command)],
        {
            "type": "local_shell_call",
            "id": "ls_1",
            "call_id": "call_ls",
            "status": "completed",
            "action": {"type": "exec", "command": ["ls"], "env": {}},
        },
    ),
}
SAID = "See this page."


def model_server(*calls, text_first=False):
    """A server that returns the calls and a text; the text comes later if the calls run in the gateway."""

    def handler(request):
        if request.path.endswith("/chat/completions"):
            return Answer(words(SAID))
        answer = [message_item(SAID, CITED)]
        hosted = not any(call["type"] in LOCAL_TYPES for call in calls) or len(calls) > 1
        if hosted:
            return items_reply(request, [*answer, *calls] if text_first else [*calls, *answer])
        ran = any(str(item.get("type", "")).endswith("_output") for item in request.items)
        return items_reply(request, answer if ran else list(calls))

    return FakeUpstream(handler)


LOCAL_TYPES = {"shell_call", "apply_patch_call", "custom_tool_call", "computer_call", "local_shell_call"}


@asynccontextmanager
async def served(upstream, agent, api="responses", **config):
    config = {"plugins": {"upstreams": {"up": {"base_url": upstream.base_url, "api": api}}}, **config}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        yield g


async def alone(upstream, agent, *, stream):
    """The final output of a run of the SDK without the gateway."""
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="none") as client:
        config = RunConfig(model=OpenAIResponsesModel("m", client), tracing_disabled=True)
        if not stream:
            return (await Runner.run(agent, "hi", run_config=config)).final_output
        result = Runner.run_streamed(agent, "hi", run_config=config)
        async for _ in result.stream_events():
            pass
        return result.final_output


async def chat(g, *, stream, **more):
    """The text and the other fields of a chat answer."""
    if not stream:
        answer = await g.openai.chat.completions.create(model="X", messages=USER, **more)
        return answer.choices[0].message.content, answer.choices[0].message.model_dump(exclude_none=True)
    text, fields = "", {}
    async for chunk in await g.openai.chat.completions.create(model="X", messages=USER, stream=True, **more):
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        text += delta.content or ""
        for name in ("annotations", "images"):
            fields.setdefault(name, []).extend((delta.model_extra or {}).get(name) or ())
    return text, fields


def sent(upstream):
    """The tools in each request so far; forgets the requests."""
    names = ("tools", "tool_choice", "include")
    found = [
        {name: record.body.get(name) for name in names}
        for record in upstream.records
        if record.request.method == "POST"
    ]
    upstream.reset()
    return found


@BOTH
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("name", [*CALLS, *HERE])
async def test_a_tool_behaves_as_with_the_sdk_alone(name, beside, stream):
    tools, *calls = (CALLS | HERE)[name]
    agent = Agent(name="x", instructions="x", tools=[*([add] if beside else []), *tools])
    with model_server(*calls) as upstream:
        expected = await alone(upstream, agent, stream=stream)
        wanted = sent(upstream)
        async with served(upstream, agent) as g:
            text, _ = await chat(g, stream=stream)
        assert sent(upstream) == wanted
        assert text.replace(f"![image_generation](data:image/png;base64,{PNG})\n\n", "") == expected == SAID


@BOTH
async def test_generated_code_calls_tools(stream):
    program = {"type": "program", "id": "pr_1", "call_id": "call_pr", "code": "add(1, 2)", "fingerprint": "f"}
    caller = {"type": "program", "caller_id": "call_pr"}
    called = {"type": "function_call", "id": "fc_1", "call_id": "call_add", "name": "add", "status": "completed"}
    called |= {"arguments": '{"a": 1, "b": 2}', "caller": caller}
    result = {"type": "program_output", "id": "po_1", "call_id": "call_pr", "result": "3", "status": "completed"}

    def handler(request):
        ran = any(item.get("type") == "function_call_output" for item in request.items)
        return items_reply(request, [result, message_item(SAID)] if ran else [program, called])

    counted = function_tool(add_numbers, name_override="add", allowed_callers=["programmatic"])
    agent = Agent(name="x", tools=[ProgrammaticToolCallingTool(), counted])
    with FakeUpstream(handler) as upstream:
        assert await alone(upstream, agent, stream=stream) == SAID
        async with served(upstream, agent) as g:
            text, _ = await chat(g, stream=stream, extra_headers=OPEN_WEBUI)
            assert (await chat(g, stream=stream))[0] == SAID
        assert text.count("<details") == 2
        assert text.endswith(SAID)


@BOTH
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("name", [*CALLS, *HERE, "programmatic"])
async def test_a_chat_upstream_answers_without_the_tools_that_it_cannot_run(name, beside, stream, caplog):
    tools = [ProgrammaticToolCallingTool()] if name == "programmatic" else (CALLS | HERE)[name][0]
    agent = Agent(name="x", instructions="x", tools=[*([add] if beside else []), *tools])
    with model_server() as upstream:
        async with served(upstream, agent, api="chat") as g:
            [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert tools[0].name in warning
            assert (await chat(g, stream=stream))[0] == SAID
        given = [tool["function"]["name"] for tool in sent(upstream)[0]["tools"] or ()]
        assert given == [*(["add"] if beside else []), *(["rates"] if name == "tool_search" else [])]


@BOTH
async def test_a_chat_upstream_gets_deferred_tools_and_tools_in_namespaces(stream):
    @function_tool(defer_loading=True)
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    def handler(request):
        results = request.tool_results
        if not results:
            return Answer(calls=(Call("rates", '{"currency": "EUR"}'), Call("pay", '{"amount": 3}')))
        return Answer(words(" ".join(results[-1])))

    agent = Agent(name="x", tools=[ToolSearchTool(), *NAMESPACE, pay])
    with FakeUpstream(handler) as upstream:
        async with served(upstream, agent, api="chat") as g:
            assert (await chat(g, stream=stream))[0] == "rates of EUR paid 3"


@BOTH
async def test_a_generated_image_reaches_the_person(stream):
    tools, item = CALLS["image_generation"]
    image = f"![image_generation](data:image/png;base64,{PNG})"
    with model_server(item) as upstream:
        async with served(upstream, Agent(name="x", tools=tools)) as g:
            text, _ = await chat(g, stream=stream)
            assert text == f"{image}\n\n{SAID}"
            text, fields = await chat(g, stream=stream, extra_headers=OPEN_WEBUI)
            assert PNG not in text
            assert fields["images"] == [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
            output = (await g.openai.responses.create(model="X", input="hi")).output
            assert [item.type for item in output] == ["image_generation_call", "message"]
            assert output[0].result == PNG
            assert output[0].id.startswith("ig_")


async def test_an_image_in_an_earlier_answer_is_not_sent_as_text():
    history = [*USER, {"role": "assistant", "content": f"![chart](data:image/png;base64,{PNG})\n\nHere."}, *USER]
    with model_server() as upstream:
        async with served(upstream, Agent(name="x")) as g:
            await g.openai.chat.completions.create(model="X", messages=history)
        [record] = [record for record in upstream.records if record.request.method == "POST"]
        assert record.body["input"][1]["content"] == "[image: chart]\n\nHere."


@BOTH
@pytest.mark.parametrize("text_first", [False, True])
async def test_citations_point_at_their_words(stream, text_first):
    tools, item = CALLS["web_search"]
    with model_server(item, text_first=text_first) as upstream:
        async with served(upstream, Agent(name="x", tools=tools)) as g:
            for headers in ({}, OPEN_WEBUI):
                text, fields = await chat(g, stream=stream, extra_headers=headers)
                [annotation] = fields["annotations"]
                cited = annotation["url_citation"]
                assert (cited["url"], cited["title"]) == (CITED["url"], CITED["title"])
                assert text[cited["start_index"] : cited["end_index"]] == "this"
            output = (await g.openai.responses.create(model="X", input="hi")).output
            [message] = [item for item in output if item.type == "message"]
            assert [each.to_dict() for each in message.content[0].annotations] == [CITED]
            [search] = [item for item in output if item.type == "web_search_call"]
            assert search.action.query == "news"


async def test_responses_streams_a_hosted_call_in_its_own_form():
    tools, item = CALLS["web_search"]
    with model_server(item) as upstream:
        async with served(upstream, Agent(name="x", tools=tools)) as g:
            events = [event async for event in await g.openai.responses.create(model="X", input="hi", stream=True)]
    kinds = [event.type for event in events]
    started = kinds.index("response.output_item.added")
    assert kinds[started : started + 4] == [
        "response.output_item.added",
        "response.web_search_call.in_progress",
        "response.web_search_call.completed",
        "response.output_item.done",
    ]
    assert kinds.count("response.output_text.annotation.added") == 1
    assert [item.type for item in events[-1].response.output] == ["web_search_call", "message"]
    assert events[-1].response.output_text == SAID


@BOTH
async def test_a_finished_hosted_call_is_shown_with_its_arguments_and_output(stream):
    for name, shown in {"code_interpreter": "print(1)", "file_search": "Two years.", "hosted_mcp": "A page."}.items():
        tools, item = CALLS[name]
        with model_server(item) as upstream:
            async with served(upstream, Agent(name="x", tools=tools)) as g:
                text, _ = await chat(g, stream=stream, extra_headers=OPEN_WEBUI)
        assert shown in text
        assert text.index("<details") < text.index(SAID)


def chart():
    return [
        ToolOutputText(text="a chart"),
        ToolOutputImage(image_url=f"data:image/png;base64,{PNG}"),
        ToolOutputImage(image_url="https://example.org/a.png"),
        ToolOutputImage(image_url="javascript:alert(1)"),
        ToolOutputFileContent(file_url="https://example.org/a.pdf", filename="a.pdf"),
    ]


@BOTH
async def test_what_a_tool_made_reaches_the_person(stream):
    made = function_tool(chart, name_override="chart", description_override="Draw.")

    def handler(request):
        ran = any(item.get("role") == "tool" for item in request.items)
        return Answer(words("Done.")) if ran else Answer(calls=(Call("chart"),))

    with FakeUpstream(handler) as upstream:
        async with served(upstream, Agent(name="x", tools=[made]), api="chat") as g:
            text, _ = await chat(g, stream=stream)
            assert text == (
                f"![chart](data:image/png;base64,{PNG})\n\n![chart](https://example.org/a.png)\n\n"
                "[a.pdf](https://example.org/a.pdf)\n\nDone."
            )
            text, fields = await chat(g, stream=stream, extra_headers=OPEN_WEBUI)
            assert len(fields["images"]) == 2
            assert "[a.pdf](https://example.org/a.pdf)" in text
            output = (await g.openai.responses.create(model="X", input="hi")).output
            [result] = [item for item in output if item.type == "function_call_output"]
            assert [part.type for part in result.output] == ["input_text", *["input_image"] * 3, "input_file"]


OPEN_WEBUI = {"x-openwebui-user-id": "1"}


@BOTH
@pytest.mark.parametrize(
    ("name", "tools", "shown"),
    [
        ("shell", [ShellTool(executor=run_command, needs_approval=True)], "ls -l"),
        ("apply_patch", [ApplyPatchTool(editor=Editor(), needs_approval=True)], "-one"),
        (
            "custom",
            [CustomTool(name="shout", description="S.", on_invoke_tool=transform, needs_approval=True)],
            "free text",
        ),
    ],
)
async def test_an_approval_shows_what_is_asked(name, tools, shown, stream):
    with model_server(HERE[name][1]) as upstream:
        async with served(upstream, Agent(name="x", tools=tools)) as g:
            question, _ = await chat(g, stream=stream)
            assert shown in question
            asked = (await g.openai.responses.create(model="X", input="hi")).output
            [request] = [item for item in asked if item.type == "mcp_approval_request"]
            assert shown in request.arguments
            answer = {"role": "user", "content": "approve"}
            messages = [*USER, {"role": "assistant", "content": question}, answer]
            resumed = await g.openai.chat.completions.create(model="X", messages=messages, extra_headers=OPEN_WEBUI)
            assert resumed.choices[0].message.content.endswith(SAID)
            assert shown in resumed.choices[0].message.content.replace("&quot;", '"')


async def test_an_approval_of_a_hosted_mcp_call_shows_its_arguments():
    asked = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "server_label": "docs",
        "name": "read",
        "arguments": '{"page": 1}',
    }

    def handler(request):
        given = any(item.get("type") == "mcp_approval_response" for item in request.items)
        return items_reply(request, [message_item(SAID)] if given else [asked])

    with FakeUpstream(handler) as upstream:
        async with served(upstream, Agent(name="x", tools=[mcp("always")])) as g:
            question, _ = await chat(g, stream=False)
            assert '**read** `{"page": 1}`' in question
            messages = [*USER, {"role": "assistant", "content": question}, {"role": "user", "content": "yes"}]
            resumed = await g.openai.chat.completions.create(model="X", messages=messages)
            assert resumed.choices[0].message.content == SAID


@BOTH
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_a_prompt_template_is_sent_or_reported(api, stream, caplog):
    prompt = {"id": "pmpt_1", "variables": {"topic": "x"}}
    with model_server() as upstream:
        async with served(upstream, Agent(name="x", prompt=prompt), api=api) as g:
            warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert any("prompt template" in message for message in warned) is (api == "chat")
            assert (await chat(g, stream=stream))[0] == SAID
        [record] = [record for record in upstream.records if record.request.method == "POST"]
        assert (record.body.get("prompt") or {}).get("id") == ("pmpt_1" if api == "responses" else None)


@BOTH
@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_an_agent_as_a_tool_searches_and_answers(api, stream):
    inner = Agent(name="inner", tools=[WebSearchTool()])

    def handler(request):
        tools = [tool.get("name") or tool.get("function", {}).get("name") for tool in request.body.get("tools") or ()]
        if "ask" in tools:
            results = request.tool_results
            if results:
                return Answer(words(f"I asked: {results[-1][0]}"))
            return Answer(calls=(Call("ask", '{"input": "q"}'),))
        if api == "chat":
            return Answer(words(SAID))
        return items_reply(request, [CALLS["web_search"][1], message_item(SAID)])

    with FakeUpstream(handler) as upstream:
        async with served(upstream, Agent(name="x", tools=[inner.as_tool("ask", "Ask.")]), api=api) as g:
            assert (await chat(g, stream=stream))[0] == f"I asked: {SAID}"


@BOTH
@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("kind", ["sqlite", "sqlalchemy", "encrypted"])
async def test_sessions_of_a_workflow_keep_the_conversation(kind, api, stream, tmp_path):
    plain = SQLiteSession("s", tmp_path / "plain.db")
    if kind == "sqlalchemy":
        session = SQLAlchemySession.from_url("s", url=f"sqlite+aiosqlite:///{tmp_path}/s.db", create_tables=True)
    elif kind == "encrypted":
        session = EncryptedSession("s", plain, encryption_key="k" * 16)
    else:
        session = plain
    agent = Agent(name="x")

    async def workflow(text: str) -> str:
        return (await Runner.run(agent, text, session=session)).final_output

    with model_server() as upstream:
        async with served(upstream, workflow, api=api) as g:
            for _ in range(2):
                assert (await chat(g, stream=stream))[0] == SAID
        if kind == "sqlalchemy":
            await session.engine.dispose()
        last = [record for record in upstream.records if record.request.method == "POST"][-1]
        assert [item["role"] for item in last.request.items] == ["user", "assistant", "user"]


def test_the_page_lists_the_tools_that_are_tested():
    page = Path(__file__).parents[3].joinpath("docs/guides/sdk-features.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| yes", page, re.MULTILINE)
    assert sorted(listed) == sorted([*CALLS, *HERE, "programmatic"])
