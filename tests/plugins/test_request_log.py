"""Log lines: context, format, escaping, and no content of users, models or tools."""

import fcntl
import io
import json
import logging
import os
import re
import struct
import termios
import threading
from contextlib import contextmanager, suppress

import pytest
from agents import Agent, Model, ModelResponse, function_tool
from agents import Usage as SdkUsage
from gateway_plugins.request_log.console import ConsoleFormatter
from gateway_plugins.request_log.formats import JsonFormatter, Line, set_line
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
    record = logging.makeLogRecord({"name": "x", "msg": message, "levelno": 20, "levelname": "INFO"})
    set_line(record, Line(given={"key": value}))
    for formatter in (JsonFormatter(), ConsoleFormatter(io.StringIO())):
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


@contextmanager
def terminal(columns):
    """The output side of a pseudo-terminal, and a function that returns what was written to it so far."""
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.set_blocking(reader, False)

    def written():
        parts = []
        with suppress(BlockingIOError):
            while part := os.read(reader, 65536):
                parts.append(part)
        return b"".join(parts).decode().replace("\r\n", "\n")

    with open(writer, "w", encoding="utf-8") as stream:
        yield stream, written
    os.close(reader)


@contextmanager
def logging_to(stream):
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@pytest.fixture(autouse=True)
def no_color_setting(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


COLORS = re.compile(r"\x1b\[[0-9;]*m")
LONG = "A" + "a" * 120


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("agent_id", ["A", LONG])
async def test_a_request_is_one_line_of_the_terminal(columns, agent_id):
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    with terminal(columns) as (stream, written), logging_to(stream):
        async with gateway_in_memory({agent_id: Agent(name="a", model=script("one two"))}) as g:
            await g.http.post("/v1/chat/completions", json={**BODY, "model": agent_id})
            await g.http.get("/x/" + "y" * 200 + "%0a\u754c")
        text = written()
    assert COLORS.search(text)
    answered, unknown = COLORS.sub("", text).splitlines()
    assert len(answered) <= columns
    assert len(unknown) <= columns
    shown = re.fullmatch(
        r"\d\d:\d\d:\d\d 200 POST (?P<path>\S+) (?P<agent>\S+) [\d.]+ m?s (?P<tokens>\d+\+\d+ tokens )?[0-9a-f]{8}",
        answered,
    )
    assert shown, answered
    assert "/v1/chat/completions".startswith(shown["path"].rstrip("…"))
    assert agent_id.startswith(shown["agent"].rstrip("…"))
    if columns == 200:
        assert (shown["path"], shown["agent"]) == ("/v1/chat/completions", agent_id)
    assert re.match(r"\d\d:\d\d:\d\d 404 GET  /x/y", unknown)


class Counted(Model):
    """A model that reports token counts."""

    def __init__(self) -> None:
        self.inner = script("hi", "hi")

    async def get_response(self, *given, **named) -> ModelResponse:
        answer = await self.inner.get_response(*given, **named)
        answer.usage = SdkUsage(requests=1, input_tokens=1200, output_tokens=35, total_tokens=1235)
        return answer

    def stream_response(self, *given, **named):
        raise NotImplementedError  # the gateway then streams the whole answer


async def test_the_tokens_of_a_request_are_logged(console):
    async with gateway_in_memory({"A": Agent(name="a", model=Counted())}) as g:
        for stream in (False, True):
            await g.http.post("/v1/chat/completions", json={**BODY, "stream": stream})
        await g.http.get("/v1/models")
    answered, streamed, listed = [line for line in lines(console) if line["message"] == "request"]
    for line in (answered, streamed):
        assert (line["input_tokens"], line["output_tokens"]) == (1200, 35)
    assert "input_tokens" not in listed


def console_line(stream=None, *, details=False, level=logging.INFO, name="gateway_core.x", line=Line(), message="m"):  # noqa: B008
    record = logging.makeLogRecord(
        {"name": name, "msg": message, "levelno": level, "levelname": logging.getLevelName(level)}
    )
    set_line(record, line)
    return ConsoleFormatter(stream or io.StringIO(), details=details).format(record)


REQUEST = Line(
    {"agent_id": "A", "request_id": "req_0123456789abcdef", "principal": "local"},
    {
        "method": "POST",
        "path": "/v1/responses",
        "status": 200,
        "seconds": 1.5,
        "input_tokens": 1200,
        "output_tokens": 35,
    },
)


@pytest.mark.parametrize(
    ("request_id", "shown"),
    [("req_0123456789abcdef", "01234567"), ("short", "short"), ("session-of-a-client-0001", "ent-0001")],
)
def test_a_request_line_without_a_terminal_is_not_shortened(request_id, shown):
    line = Line({**REQUEST.context, "request_id": request_id, "agent_id": LONG}, REQUEST.fields)
    text = console_line(name="agent_gateway.request", line=line)
    assert text[9:] == f"200 POST /v1/responses {LONG} 1.50 s 1200+35 tokens {shown}"


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_fields_end_with_the_line_of_the_terminal_unless_something_is_wrong(level):
    fields = Line({}, {}, {"principal": "alice", "pattern": None, "subject": "x" * 100})
    with terminal(60) as (stream, _):
        text = COLORS.sub("", console_line(line=fields, level=level, stream=stream, message="decision"))
    if level == logging.INFO:
        assert len(text) == 60
        assert re.fullmatch(r"\S+ decision principal=alice subject=x+…", text)
    else:
        assert text.endswith("x" * 100)


def test_details_are_shown_at_debug_level_only():
    context = {"request_id": "req_1", "principal": "local", "agent_id": "A"}
    line = Line(context, {"tools": 2}, {"color": "red"})
    assert console_line(line=line)[9:] == "m color=red"
    assert console_line(line=line, level=logging.WARNING)[9:] == "WARNING m agent_id=A request_id=req_1 color=red"
    assert console_line(line=line, name="authors")[9:] == "authors: m color=red"
    assert (
        console_line(line=line, level=logging.WARNING, message="A: m")[9:] == "WARNING A: m request_id=req_1 color=red"
    )
    everything = "request_id=req_1 principal=local agent_id=A tools=2 color=red"
    assert console_line(line=line, details=True)[9:] == f"INFO gateway_core.x: m {everything}"
    assert "status=200" in console_line(line=REQUEST, name="agent_gateway.request", details=True)


@pytest.mark.parametrize(
    ("environment", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colors(environment, on_terminal, elsewhere, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with terminal(80) as (stream, _):
        for name in ("agent_gateway.request", "gateway_core.x"):
            assert ("\x1b[" in console_line(stream, name=name, line=REQUEST)) is on_terminal
            assert ("\x1b[" in console_line(name=name, line=REQUEST)) is elsewhere


@pytest.mark.parametrize("setting", ["auto", "console", "json"])
@pytest.mark.parametrize("where", ["terminal", "file"])
async def test_the_format_depends_on_the_output(setting, where):
    with terminal(80) as (stream, written):
        output = stream if where == "terminal" else io.StringIO()
        with logging_to(output):
            async with gateway_in_memory({}, config={"plugins": {"request_log": {"format": setting}}}):
                logging.getLogger("authors").warning("hi")
        text = written() if where == "terminal" else output.getvalue()
    is_json = setting == "json" or (setting == "auto" and where == "file")
    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is (where == "terminal" and not is_json)
