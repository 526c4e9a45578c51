"""The Responses API of the real command with the official client: typed events, and persistence after `kill -9`."""

import resource
import signal
import time
import urllib.request

import openai
import pytest

from tests.acceptance.conftest import STOP_SECONDS, serving

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
    server.process.wait(STOP_SECONDS)


def test_answers_are_sent_although_the_disk_is_full(folder):
    with serving(folder) as server:
        client = server.client()
        first = client.responses.create(model="Keeper", input="say: one")
        size = sum(path.stat().st_size for path in (folder / ".agent-gateway").glob("sessions.db*"))
        # Writes beyond this size fail, as on a full disk.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        text = "say: " + "word " * 20_000
        raw = client.responses.with_raw_response.create(model="Keeper", input=text, previous_response_id=first.id)
        assert raw.headers["x-agent-gateway-stored"] == "false"
        assert raw.parse().output_text.startswith("word")
        events = list(client.responses.create(model="Keeper", input=text, stream=True))
        assert (events[-1].type, events[-1].response.store) == ("response.completed", False)
        memory = {"x-agent-gateway-session": "c"}
        chat = client.chat.completions.create(
            model="Keeper", messages=[{"role": "user", "content": text}], extra_headers=memory
        )
        assert chat.choices[0].message.content.startswith("word")
        ready = urllib.request.urlopen(f"{server.url}/readyz").read().decode()
        assert "sessions: failed (optional)" in ready
        assert "state_not_writable" in urllib.request.urlopen(f"{server.url}/admin/agents/errors").read().decode()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = client.responses.create(model="Keeper", input=text, previous_response_id=first.id)
        assert client.responses.retrieve(again.id).output_text == again.output_text
        assert "sessions" not in urllib.request.urlopen(f"{server.url}/readyz").read().decode()


def test_a_corrupt_database_is_replaced(folder):
    (folder / ".agent-gateway").mkdir()
    (folder / ".agent-gateway" / "sessions.db").write_bytes(b"\x00\x01" * 4000)
    with serving(folder) as server:
        client = server.client()
        response = client.responses.create(model="Keeper", input="say: one")
        assert client.responses.retrieve(response.id).output_text == "one"
        assert "state_replaced" in urllib.request.urlopen(f"{server.url}/admin/agents/errors").read().decode()
    assert (folder / ".agent-gateway" / "sessions.broken").exists()


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
