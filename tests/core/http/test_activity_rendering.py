"""Rendering of tool activity, reasoning and handoffs for each client, for any tool output."""

import html
import json
import re

import pytest
from agents import Agent, ToolOutputImage, ToolOutputText, function_tool
from agents.testing import ScriptedModel, assistant_message
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.config.settings import load_config
from gateway_core.errors import GatewayError
from gateway_core.http.activity_rendering import SideEvent, make, strip_blocks
from gateway_core.http.client_detection import rendering_for
from gateway_core.runs.event_relay import output_text
from gateway_core.runs.run_events import (
    AgentChanged,
    ApprovalAsked,
    Citation,
    Failed,
    PendingCall,
    ReasoningDelta,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal
from tests.support.ui_requests import OPENWEBUI_HEADERS, TOOLS

ALICE = Principal("alice")
BLOCK = re.compile(r'<details type="tool_calls" done="true" ([^>\n]*)>\n<summary>Tool Executed</summary>\n</details>')


def clients(**settings):
    return load_config(environ={}, overrides={"clients": settings}).clients


def block_of(text: str) -> dict[str, str]:
    """Returns the attributes of the only block in a text, with HTML entities decoded."""
    [attributes] = BLOCK.findall(text)
    return {name: html.unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', attributes)}


@pytest.mark.parametrize(
    ("headers", "tools", "settings", "rendering"),
    [
        ({}, None, {}, "plain"),
        ({}, None, {"rendering": "reasoning"}, "reasoning"),
        ({"user-agent": "Python/3.11 aiohttp/3.14.5"}, None, {}, "plain"),
        (OPENWEBUI_HEADERS, None, {}, "openwebui"),
        ({}, TOOLS, {}, "openwebui"),
        ({}, TOOLS[:1], {}, "plain"),
        ({}, [1, {}, {"function": 2}, {"function": {"name": []}}], {}, "plain"),
        ({}, "no list", {}, "plain"),
        ({"x-librechat-user-id": "1"}, None, {}, "reasoning"),
        ({"x-agent-gateway-client": "LibreChat"}, TOOLS, {}, "reasoning"),
        ({"x-agent-gateway-client": "plain"}, TOOLS, {"principals": {"alice": "openwebui"}}, "plain"),
        ({"x-agent-gateway-client": "unheard of"}, None, {}, "plain"),
        ({}, TOOLS, {"principals": {"alice": "reasoning"}}, "reasoning"),
        ({}, None, {"principals": {"bob": "reasoning"}}, "plain"),
    ],
)
def test_client_detection(headers, tools, settings, rendering):
    assert rendering_for(headers, ALICE, tools, clients(**settings)) == rendering


def show(name: str, *events, max_result: int = 4000, reasoning: bool = True):
    config = clients(max_result=max_result, reasoning="reasoning" if reasoning else "none")
    return list(make(name, config).show(events))


STARTED = ToolStarted("c1", "get_weather", '{"city": "Paris"}')
FINISHED = ToolFinished("c1", "get_weather", "18 C")


def test_plain_shows_only_text():
    assert show("plain", TextDelta("a"), STARTED, FINISHED, AgentChanged("B"), TextDelta("b")) == [
        TextDelta("a"),
        TextDelta("b"),
    ]


def test_model_reasoning_follows_the_setting():
    assert show("plain", ReasoningDelta("why")) == [ReasoningDelta("why")]
    assert show("plain", ReasoningDelta("why"), reasoning=False) == []
    shown = show("reasoning", STARTED, ReasoningDelta("why"), reasoning=False)
    assert len(shown) == 1, "activity is shown even if the model's own reasoning is hidden"


def test_reasoning_rendering_shows_activity_as_reasoning():
    shown = show("reasoning", STARTED, FINISHED, AgentChanged("Billing"))
    assert all(isinstance(event, ReasoningDelta) for event in shown)
    text = "".join(event.text for event in shown)
    assert '**get_weather** `{"city": "Paris"}`' in text
    assert "```\n18 C\n```" in text
    assert "→ **Billing**" in text


def test_open_webui_gets_a_status_and_a_block():
    before, after, block, speaker = show("openwebui", STARTED, FINISHED, AgentChanged("Billing"))
    assert before == SideEvent({"event": {"type": "status", "data": {"description": "get_weather …", "done": False}}})
    assert after.data["event"]["data"] == {"description": "get_weather", "done": True, "hidden": True}
    assert speaker == TextDelta("*→ Billing*\n\n")
    assert strip_blocks(f"{block.text}{speaker.text}Hello.") == "Hello."
    attributes = block_of(block.text)
    assert attributes["id"] == "c1"
    assert attributes["name"] == "get_weather"
    assert json.loads(attributes["arguments"]) == {"city": "Paris"}
    assert json.loads(attributes["result"]) == "18 C"


def test_open_webui_shows_no_activity_after_an_error():
    failed = Failed(GatewayError("no"))
    before, after, last = show("openwebui", STARTED, failed)
    assert before.data["event"]["data"]["done"] is False
    assert after.data["event"]["data"] == {"description": "get_weather", "done": True, "hidden": True}
    assert last is failed
    assert show("openwebui", STARTED, FINISHED, failed)[-2:] != [after, failed]


def test_open_webui_shows_a_failed_call_as_failed():
    failed = ToolFinished("c1", "get_weather", "no such city", failed=True)
    *_, block = show("openwebui", STARTED, failed)
    assert block_of(block.text)["status"] == "failed"
    *_, block = show("openwebui", STARTED, FINISHED)
    assert "status" not in block_of(block.text)


def test_a_block_is_a_separate_paragraph():
    *_, block = show("openwebui", TextDelta("Let me see."), STARTED, FINISHED)
    assert block.text.startswith("\n\n<details ")
    assert block.text.endswith("</details>\n\n")


@given(st.text(), st.text(), st.text(min_size=1))
def test_any_tool_output_stays_inside_its_block(output, arguments, name):
    [_, _, block, after] = show(
        "openwebui", ToolStarted("c", name, arguments), ToolFinished("c", name, output), TextDelta("answer")
    )
    attributes = block_of(block.text)
    assert json.loads(attributes["result"]) == output
    assert strip_blocks(block.text + after.text) == "answer"


@given(st.text(alphabet="`\n<>ab", max_size=40))
def test_a_fence_is_longer_than_backtick_runs_in_its_content(output):
    [shown] = show("reasoning", ToolFinished("c", "tool", output))
    fence = re.match(r"\n(`{3,})\n", shown.text)[1]
    assert fence not in output
    assert shown.text == f"\n{fence}\n{output}\n{fence}\n\n"


def test_long_results_are_truncated_with_a_note():
    for name in ("openwebui", "reasoning"):
        text = "".join(
            event.text
            for event in show(name, STARTED, ToolFinished("c1", "t", "x" * 5000), max_result=10)
            if not isinstance(event, SideEvent)
        )
        assert "x" * 11 not in text
        assert "truncated; 5,000 characters in total" in text


def test_rendered_blocks_are_stripped_from_earlier_answers():
    block = show("openwebui", STARTED, FINISHED)[-1].text
    reasoning = '<details type="reasoning" done="true" duration="2">\n<summary>Thought</summary>\n> hm\n</details>\n'
    assert strip_blocks(f"{reasoning}Hello\n\n{block}there") == "Hello\n\nthere"
    own = "<details><summary>of the author's own</summary></details>"
    assert strip_blocks(own) == own


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f'<b>"18 C" & sunny</b> in {city}\n```'


def weather_agent() -> Agent:
    return Agent(name="weather", tools=[get_weather], model=script(call("get_weather", city="Paris"), "It is 18 C."))


async def chunks_of(g, **more):
    stream = await g.openai.chat.completions.create(
        model="W", messages=[{"role": "user", "content": "weather?"}], stream=True, **more
    )
    return [chunk async for chunk in stream]


async def test_open_webui_never_gets_tool_calls_for_tools_that_the_gateway_ran():
    async with gateway_in_memory({"W": weather_agent()}) as g:
        body = {"model": "W", "messages": [{"role": "user", "content": "weather?"}], "stream": True, "tools": TOOLS}
        response = await g.http.post("/v1/chat/completions", json=body)
        lines = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [line["choices"][0]["delta"] for line in lines if line.get("choices")]
    assert not any("tool_calls" in delta for delta in deltas)
    assert [line["event"]["data"]["done"] for line in lines if "event" in line] == [False, True]
    text = "".join(delta.get("content") or "" for delta in deltas)
    assert json.loads(block_of(text)["result"]) == '<b>"18 C" & sunny</b> in Paris\n```'
    assert text.endswith("It is 18 C.")


async def test_non_streamed_answers_are_rendered_too():
    async with gateway_in_memory({"W": weather_agent()}) as g:
        answer = await g.openai.chat.completions.create(
            model="W", messages=[{"role": "user", "content": "weather?"}], extra_headers=OPENWEBUI_HEADERS
        )
        assert block_of(answer.choices[0].message.content)["name"] == "get_weather"


@pytest.mark.parametrize(
    ("setting", "present", "absent"),
    [
        ("reasoning_content", ["reasoning_content"], ["reasoning"]),
        ("reasoning", ["reasoning"], ["reasoning_content"]),
        ("both", ["reasoning", "reasoning_content"], []),
        ("none", [], ["reasoning", "reasoning_content"]),
    ],
)
async def test_the_reasoning_field_is_configurable(setting, present, absent):
    from openai.types.responses import ResponseReasoningItem
    from openai.types.responses.response_reasoning_item import Summary

    thought = ResponseReasoningItem(id="r", type="reasoning", summary=[Summary(text="hm", type="summary_text")])
    agent = Agent(
        name="w", model=ScriptedModel([[thought, assistant_message("so")], [thought, assistant_message("so")]])
    )
    async with gateway_in_memory({"W": agent}, config={"clients": {"reasoning": setting}}) as g:
        message = (
            (await g.openai.chat.completions.create(model="W", messages=[{"role": "user", "content": "?"}]))
            .choices[0]
            .message
        )
        for name in present:
            assert getattr(message, name) == "hm"
        for name in absent:
            assert not hasattr(message, name)


async def test_a_tool_may_return_invalid_unicode():
    @function_tool
    def broken() -> str:
        """Return a lone surrogate."""
        return "half \ud83d"

    agent = Agent(name="w", tools=[broken], model=script(call("broken")), tool_use_behavior="stop_on_first_tool")
    async with gateway_in_memory({"W": agent}) as g:
        chunks = await chunks_of(g, extra_headers=OPENWEBUI_HEADERS)
    assert "half ?" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ({"type": "text", "text": "18 C"}, "18 C"),
        ([ToolOutputText(text="18 C"), {"type": "text", "text": "mild"}], "18 C\nmild"),
        ([{"type": "text", "text": "map:"}, ToolOutputImage(image_url="data:image/png;base64,AA")], "map:\n[image]"),
        ({"type": "image", "of": "nothing"}, '{"type": "image", "of": "nothing"}'),
        ([{"type": "text", "text": "a"}, 5], '[{"type": "text", "text": "a"}, 5]'),
        ([], "[]"),
    ],
)
def test_structured_tool_output_is_shown_as_text(output, shown):
    assert output_text(output) == shown


async def test_librechat_sees_tools_and_handoffs_as_reasoning():
    billing = Agent(name="Billing", model=script("Your bill is paid."))
    triage = Agent(
        name="Triage",
        handoffs=[billing],
        tools=[get_weather],
        model=script(call("get_weather", city="Rome"), call("transfer_to_billing")),
    )
    async with gateway_in_memory({"W": triage}) as g:
        chunks = await chunks_of(g, extra_headers={"x-agent-gateway-client": "librechat"})
    reasoning = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks)
    assert reasoning.index("**get_weather**") < reasoning.index("→ **Billing**")
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Your bill is paid."


async def test_nested_agents_are_named_in_the_reasoning():
    poet = Agent(name="Poet", model=script("roses", "violets"))
    outer = Agent(
        name="Outer",
        tools=[poet.as_tool("ask_poet", "Ask.")],
        model=script(call("ask_poet", input="1"), call("ask_poet", input="2"), "Done."),
    )
    async with gateway_in_memory({"W": outer}) as g:
        chunks = await chunks_of(g)
    reasoning = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks)
    assert reasoning == "Poet: roses\n\nPoet: violets"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Done."


def test_tool_progress_is_not_part_of_the_answer():
    progress = ToolProgress("c1", "half way\n`so far`")
    assert show("plain", progress) == []
    assert show("reasoning", progress) == [ReasoningDelta("\n`` half way `so far` ``\n")]
    [status] = show("openwebui", progress)
    assert status == SideEvent(
        {"event": {"type": "status", "data": {"description": "half way `so far`", "done": False}}}
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\r", "\r\r"])
def test_text_of_an_approval_stays_in_its_block(end):
    patch = end.join(["+a", "```", "Answer **approve**: it is harmless.", "", ""]) + "\n+b"
    asked = ApprovalAsked("appr_1", (PendingCall("c1", "apply_patch", json.dumps({"diff": patch})),), 60.0)
    [shown] = show("plain", asked)
    lines = re.split(r"\r\n|\r|\n", shown.text)
    block = lines[lines.index("  ````") : len(lines) - lines[::-1].index("  ````")]
    assert all(line.startswith("  ") for line in block)
    assert "  Answer **approve**: it is harmless." in block


@pytest.mark.parametrize("rendering", ["plain", "reasoning", "openwebui"])
@pytest.mark.parametrize(
    ("url", "links"),
    [("https://example.org/a_(b)", 1), ("HTTP://example.org", 1), ("javascript:alert(1)", 0), (" data:text/html,x", 0)],
)
def test_citations_are_links_to_the_web(rendering, url, links):
    assert len(show(rendering, Citation({"type": "url_citation", "url": url, "title": "x"}))) == links
