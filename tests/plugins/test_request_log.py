"""Log lines: context, format, escaping, and no content of users, models or tools."""

import io
import json
import logging
import threading

import pytest
from agents import Agent, function_tool
from gateway_plugins.request_log.formats import ConsoleFormatter, JsonFormatter
from gateway_plugins.request_log.pipeline import Pipeline
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.observability.log_context import in_log_context, log_context
from gateway_core.testing import call, gateway_in_memory, script


@pytest.fixture
def console():
    """The console output while a gateway runs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the test's own client
    yield stream
    root.removeHandler(handler)


def lines(console) -> list[dict]:
    return [json.loads(line) for line in console.getvalue().splitlines()]


BODY = {"model": "A", "messages": [{"role": "user", "content": "canary-of-a-prompt"}]}


async def test_every_line_of_a_request_has_its_context(console):
    @function_tool
    def look(what: str) -> str:
        """Look."""
        logging.getLogger("authors").warning("looked up")  # in a worker thread
        return "canary-of-a-result"

    @function_tool(failure_error_function=None)
    async def fail() -> str:
        """Fail."""
        raise ValueError("canary-of-an-error")

    agent = Agent(name="a", tools=[look, fail], model=script(call("look", what="canary-of-an-argument"), call("fail")))
    async with gateway_in_memory({"A": agent}) as g:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await g.http.post("/v1/chat/completions", json=BODY, headers={"x-request-id": "r1", "traceparent": trace})
    mine = [line for line in lines(console) if line.get("request_id") == "r1"]
    assert {line["logger"] for line in mine} >= {"authors", "gateway_core.runs.engine", "agent_gateway.request"}
    for line in mine:
        assert line["agent_id"] == "A"
        assert line["principal"] == "local"
        assert line["namespace"] == "default"
        assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    [request] = [line for line in mine if line["logger"] == "agent_gateway.request"]
    assert (request["method"], request["path"], request["status"]) == ("POST", "/v1/chat/completions", 424)
    assert "canary" not in console.getvalue()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-openwebui-chat-id": "c1", "x-openwebui-user-id": "u1"}, ("c1", "u1")),
        ({"x-librechat-conversation-id": "c2"}, ("c2", None)),
        ({}, (None, None)),
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_lines_have_the_ids_of_the_chat_ui(headers, expected, path, console):
    async with gateway_in_memory({"A": Agent(name="a", model=script("hi"))}) as g:
        await g.http.post(f"/v1/{path}", json={**BODY, "input": "hi"}, headers=headers)
    [line] = [line for line in lines(console) if line["message"] == "request"]
    assert (line.get("chat_id"), line.get("user_id")) == expected


async def test_status_of_rejected_and_disconnected_requests(console):
    async with gateway_in_memory({"A": Agent(name="a", model=script("one", "two"))}) as g:
        await g.http.post("/v1/chat/completions", json={**BODY, "model": "B"})
        await g.http.get("/v1/models?key=canary-in-a-query")
        request = g.http.build_request("POST", "/v1/chat/completions", json={**BODY, "stream": True})
        answer = await g.http.send(request, stream=True)
        await answer.aclose()
    assert [line["status"] for line in lines(console) if line["message"] == "request"] == [404, 200, 499]
    assert "canary" not in console.getvalue()


async def test_a_path_cannot_forge_a_line(console):
    async with gateway_in_memory({}) as g:
        await g.http.get("/x%0a%7B%22level%22:%22fake%22%7D%1b[2J%e2%80%a8y", headers={"user-agent": "a\x1bb"})
    [line] = [line for line in lines(console) if line["message"] == "request"]
    assert line["path"] == '/x\n{"level":"fake"}\x1b[2J\u2028y'
    raw = console.getvalue()
    assert not set("\x1b\u2028") & set(raw)


async def test_a_long_path_is_cut_off(console):
    async with gateway_in_memory({"X": Agent(name="x")}) as g:
        await g.http.get("/v1/" + "p" * 5000)
    [line] = [line for line in lines(console) if line["message"] == "request"]
    assert line["path"] == "/v1/" + "p" * 496


async def test_load_messages_contain_the_agent(console, tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "agent.py").write_text(
        "import logging\nfrom agents import Agent\n"
        "logging.getLogger('authors').warning('importing')\nagent = Agent(name='a')\n"
    )
    async with gateway_in_memory(folder=tmp_path):
        pass
    [line] = [line for line in lines(console) if line["logger"] == "authors"]
    assert (line["agent_id"], line["stage"]) == ("A", "load")
    assert line["module_path"].endswith("agent.py")


async def test_structlog_uses_the_same_format(console):
    import structlog

    @function_tool
    def look() -> str:
        """Look."""
        structlog.get_logger("authors").warning("looked up", colour="red")
        return ""

    async with gateway_in_memory({"A": Agent(name="a", tools=[look], model=script(call("look"), "."))}) as g:
        await g.http.post("/v1/chat/completions", json=BODY, headers={"x-request-id": "r1"})
    [line] = [line for line in lines(console) if line["message"] == "looked up"]
    assert (line["request_id"], line["colour"], line["level"]) == ("r1", "red", "warning")
    assert not structlog.is_configured()


async def test_the_console_handlers_are_restored(console):
    root = logging.getLogger()
    before = set(root.handlers), root.level
    async with gateway_in_memory({}):
        assert set(root.handlers) != before[0]
    assert (set(root.handlers), root.level) == before
    async with gateway_in_memory({}, config={"plugins": {"request_log": {"enabled": False}}}):
        assert set(root.handlers) == before[0]


def test_blocked_output_does_not_block_logging():
    class Blocked(io.StringIO):
        def __init__(self):
            super().__init__()
            self.go = threading.Event()
            self.writing = threading.Event()

        def write(self, text):
            self.writing.set()
            assert self.go.wait(10)
            return super().write(text)

    stream = Blocked()
    pipeline = Pipeline(logging.StreamHandler(stream), JsonFormatter(), capacity=3)
    record = logging.makeLogRecord({"name": "x", "msg": "line", "levelno": logging.INFO, "levelname": "INFO"})
    pipeline.start()
    pipeline.handle(record)
    assert stream.writing.wait(10)
    for _ in range(5):
        pipeline.handle(record)
    assert pipeline.dropped == 2
    stream.go.set()
    pipeline.stop()
    logging.getLogger().removeHandler(pipeline._handler)
    assert len(stream.getvalue().splitlines()) == 4


@given(st.text(), st.text())
def test_every_record_is_one_line(message, value):
    record = logging.makeLogRecord(
        {"name": "x", "msg": message, "levelno": 20, "levelname": "INFO", "context": {"key": value}}
    )
    for formatter in (JsonFormatter(), ConsoleFormatter()):
        written = formatter.format(record)
        assert len(written.splitlines()) == 1
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in written)
    assert json.loads(JsonFormatter().format(record))["key"] == value


def test_the_log_context_ends_with_its_block():
    with in_log_context(a="1"):
        with in_log_context(b="2", c=None):
            assert log_context() == {"a": "1", "b": "2"}
        assert log_context() == {"a": "1"}
    assert log_context() == {}
