"""The Responses API of the real command with the official client: typed events, and persistence after `kill -9`."""

import signal
import time

import openai
import pytest

from tests.acceptance.conftest import serving

AGENT = '''
from agents import Agent, function_tool

__gateway__ = {"memory": "session"}

@function_tool
def look(what: str) -> str:
    """Look."""
    return f"seen {what}"

@function_tool(needs_approval=True)
def delete(path: str) -> str:
    """Delete."""
    return f"deleted {path}"

agent = Agent(name="keeper", tools=[look, delete])
'''


@pytest.fixture
def folder(tmp_path, upstream):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Keeper.py").write_text(AGENT)
    (tmp_path / "gateway.toml").write_text(
        f"""
        [plugins.upstreams.fake]
        base_url = "{upstream.base_url}"
        default_model = "m"
        [plugins.entry_point_discovery]
        enabled = false
        """
    )
    upstream.reset()
    return tmp_path


def kill(server) -> None:
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(10)


def test_a_stream_of_typed_events_ends_in_the_whole_response(folder):
    with serving(folder) as server:
        client = server.client()
        with client.responses.stream(model="Keeper", input='call look {"what": "it"}') as stream:
            events = list(stream)
            whole = stream.get_final_response()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        assert [item.type for item in whole.output] == ["function_call", "function_call_output", "message"]
        assert whole.output_text == "tool said: seen it"
        assert client.responses.retrieve(whole.id).output_text == whole.output_text


def test_a_background_response_completes_after_a_disconnect(folder):
    with serving(folder) as server:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
            asked = client.responses.create(model="Keeper", input="slow 0.05 10", background=True)
            assert asked.status == "in_progress"
        client = server.client()
        deadline = time.monotonic() + 20
        while (made := client.responses.retrieve(asked.id)).status == "in_progress":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert made.output_text.split() == [f"t{number}" for number in range(10)]


def test_stored_data_survives_a_killed_process(folder, upstream):
    with serving(folder) as server:
        client = server.client()
        first = client.responses.create(model="Keeper", input='call look {"what": "it"}')
        asked = client.responses.create(model="Keeper", input='call delete {"path": "/x"}')
        chat = {"metadata": {"session_id": "chat-1"}}
        client.chat.completions.create(
            model="Keeper", messages=[{"role": "user", "content": 'call look {"what": "that"}'}], **chat
        )
        kill(server)
    with serving(folder) as server:
        client = server.client()
        client.responses.create(model="Keeper", input="say: so", previous_response_id=first.id)
        assert "seen it" in str(upstream.wait_for_records(1)[-1].body)
        [question] = [item for item in asked.output if item.type == "mcp_approval_request"]
        answer = {"type": "mcp_approval_response", "approval_request_id": question.id, "approve": True}
        done = client.responses.create(model="Keeper", input=[answer], previous_response_id=asked.id)
        assert "deleted /x" in done.output_text
        messages = [{"role": "user", "content": "say: more"}]
        client.chat.completions.create(model="Keeper", messages=messages, **chat)
        assert "seen that" in str(upstream.wait_for_records(1)[-1].body)
        client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)
