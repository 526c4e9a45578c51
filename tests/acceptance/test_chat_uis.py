"""Recorded requests of chat UIs, against the real command."""

import json
import threading
import time

import httpx2
import pytest

from tests.acceptance.conftest import serving
from tests.acceptance.test_chat import user
from tests.support.ui_requests import LIBRECHAT_TITLE, OPENWEBUI, TOOLS
from tests.support.upstream import Answer, FakeUpstream, scripted, words

AGENTS = {
    "Plain": 'from agents import Agent\n\nagent = Agent(name="Plain", instructions="Be plain.")\n',
    "Slow": """
import asyncio
from agents import Agent, function_tool

@function_tool
async def work(seconds: float) -> str:
    \"\"\"Take some time.\"\"\"
    await asyncio.sleep(seconds)
    return "worked"

agent = Agent(name="Slow", tools=[work])
""",
    "Careful": """
from pathlib import Path
from agents import Agent, function_tool

@function_tool(needs_approval=True)
def delete(name: str) -> str:
    \"\"\"Delete a file.\"\"\"
    Path("deleted.txt").open("a").write(name)
    return f"deleted {name}"

agent = Agent(name="Careful", tools=[delete])
""",
}


def model(request):
    """Returns a title for a title request, and follows the scripted instruction otherwise."""
    if "title" in request.user_text and request.user_text.startswith("### Task"):
        return Answer(words('{"title": "A title"}'))
    return scripted(request)


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream(model) as fake:
        yield fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory, upstream):
    folder = tmp_path_factory.mktemp("uis")
    for name, code in AGENTS.items():
        (folder / "agents" / name).mkdir(parents=True)
        (folder / "agents" / name / "agent.py").write_text(code)
    (folder / "gateway.toml").write_text(
        f"""
        [http]
        sse_keep_alive = "100ms"
        [agents.Slow]
        on_disconnect = "detach"
        [plugins.upstreams.fake]
        base_url = "{upstream.base_url}"
        default_model = "m"
        max_retries = 0
        [plugins.entry_point_discovery]
        enabled = false
        """
    )
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as running:
        yield running


def open_webui_chat(text: str, agent: str) -> dict:
    return {"model": agent, "messages": user(text), "stream": True, "tools": TOOLS}


def stream(server, body: dict, **options) -> list[dict | str]:
    """Returns the data lines and comments of a stream."""
    lines: list[dict | str] = []
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, **options) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                lines.append(json.loads(line[6:]))
            elif line:
                lines.append(line)
    return lines


def text_of(lines) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for line in lines
        if isinstance(line, dict)
        for choice in line.get("choices", ())
    )


def test_open_webui_first_message_and_title_concurrently(server, upstream):
    upstream.reset()
    title: list[dict] = []

    def ask_for_title():
        body = {"model": "Slow", **OPENWEBUI["title"]}
        title.append(httpx2.post(f"{server.url}/v1/chat/completions", json=body).json())

    background = threading.Thread(target=ask_for_title)
    background.start()
    lines = stream(server, open_webui_chat('call work {"seconds": 0.1}', "Slow"))
    background.join(10)
    assert json.loads(title[0]["choices"][0]["message"]["content"]) == {"title": "A title"}
    text = text_of(lines)
    assert '<details type="tool_calls" done="true" id="' in text
    assert text.endswith("tool said: worked")
    assert [line["event"]["data"]["done"] for line in lines if "event" in line] == [False, True]
    assert lines[-1] == "data: [DONE]"
    [asked] = [r.body for r in upstream.records if "### Task" in json.dumps(r.body)]
    assert not asked.get("tools"), "a title request does not include the agent's tools"


def test_librechats_title(server):
    body = {"model": "Careful", "messages": user(LIBRECHAT_TITLE), "stream": True}
    assert text_of(stream(server, body))


def test_keep_alives_during_a_long_tool_call(server):
    lines = stream(server, open_webui_chat('call work {"seconds": 2}', "Slow"), timeout=httpx2.Timeout(10, read=1))
    assert text_of(lines).endswith("tool said: worked")
    assert lines.count(": keep-alive") >= 5
    client = server.client().with_options(timeout=httpx2.Timeout(10, read=1))
    answer = client.chat.completions.create(model="Slow", messages=user('call work {"seconds": 2}'), stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in answer) == "tool said: worked"


def test_the_result_of_a_detached_run_can_be_fetched(server, upstream):
    upstream.reset()
    headers = {"x-request-id": "left-1"}
    body = {"model": "Slow", "messages": user('call work {"seconds": 0.3}'), "stream": True}
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.headers["x-request-id"] == "left-1"
    deadline = time.monotonic() + 10
    while (run := httpx2.get(f"{server.url}/v1/runs/left-1").json()).get("status") != "completed":
        assert time.monotonic() < deadline, run
        time.sleep(0.02)
    assert run["response"]["choices"][0]["message"]["content"] == "tool said: worked"


def test_an_approval_in_the_chat(server, folder):
    ask = 'call delete {"name": "x"}'
    asked = text_of(stream(server, open_webui_chat(ask, "Careful")))
    assert "Approval needed" in asked
    assert not (folder / "deleted.txt").exists()
    body = open_webui_chat(ask, "Careful")
    body["messages"] += [{"role": "assistant", "content": asked}, *user("approve")]
    assert text_of(stream(server, body)).endswith("tool said: deleted x")
    assert (folder / "deleted.txt").read_text() == "x"
