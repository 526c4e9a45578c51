"""Fuzzes what parses the input of strangers: requests, the answers of upstreams, patterns and settings.

Every input is accepted or rejected with an error of the gateway, within a time. `EXAMPLES` multiplies the number of
generated inputs. To keep an input that once failed, add it to `corpus/TARGET/`; these files are always tried.
"""

import contextlib
import json
import os
import random
import re
import time
from pathlib import Path

import orjson
import pytest
from gateway_plugins.upstreams import chat_api, responses_api, responses_dialect
from gateway_plugins.upstreams.framing import DialectError, EventReader, values
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway_core import GatewayError
from gateway_core.config.settings import HttpConfig, load_config
from gateway_core.hooks.plugin_loader import enabled_classes, settings_of
from gateway_core.http.chat.request import parse_chat_request
from gateway_core.http.responses.request import parse_responses_request
from gateway_core.testing import gateway_in_memory, script
from gateway_core.tools.patterns import PatternSet, parse_pattern, split_name

EXAMPLES = int(os.environ.get("EXAMPLES", "5")) * 60
CORPUS = Path(__file__).parent / "corpus"
SECONDS = 2.0
"""CPU time for one input; a hundred times what the slowest one takes."""
BYTES = 200_000
"""Size of the inputs that consist of many repetitions."""

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="EXAMPLES" not in os.environ,
    suppress_health_check=[*HealthCheck],
)


class Timer:
    """Fails if a block takes too much CPU time."""

    def __enter__(self):
        self.began = time.thread_time()

    def __exit__(self, kind, *_):
        if kind is None:
            assert time.thread_time() - self.began < SECONDS, "the input takes too long"


def corpus(target):
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def also(target, decode=lambda data: data):
    """Try the files of the corpus, too."""

    def decorate(test):
        for data in corpus(target):
            test = example(decode(data))(test)
        return test

    return decorate


# Values of every JSON type at places where others are expected.
WORDS = st.sampled_from((CORPUS / "words.txt").read_text().split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    WORDS,
    st.text(max_size=8),
    st.sampled_from(["\ud800", "\udc00x", "\x00", "9" * 400, "{", "```json\n{", "</think>", "data:image/png;base64,x"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(WORDS, JSON, max_size=8)


def mutations(*seeds):
    """Valid objects with some of their values replaced, removed or repeated."""

    def mutate(seed, random_, replacements):
        value = json.loads(json.dumps(seed))
        for replacement in replacements:
            places = [*_places(value)]
            container, key = random_.choice(places)
            action = random_.randrange(4)
            if action == 0:
                del container[key]
            elif action == 1 and isinstance(container, list):
                container.append(container[key])
            else:
                container[key] = replacement
            if not value:
                break
        return value

    replacements = st.lists(JSON, max_size=3)
    return st.builds(mutate, st.sampled_from(seeds), st.randoms(use_true_random=False), replacements)


def _places(value):
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


CHAT = {
    "model": "Echo",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "user", "content": "hi"},
    ],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "stop": ["x"],
    "metadata": {"a": "b"},
    "stream_options": {"include_usage": True},
}
RESPONSES = {
    "model": "Echo",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
    ],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    "reasoning": {"effort": "low"},
}
LIMITS = load_config(overrides={}, environ={}).http


def rejection(work):
    """The error of the gateway that a function raises, if any."""
    try:
        work()
    except GatewayError as error:
        return error
    return None


def _object(data):
    return json.loads(data)


@pytest.mark.parametrize(
    ("parse", "seed"), [(parse_chat_request, CHAT), (parse_responses_request, RESPONSES)], ids=["chat", "responses"]
)
def test_a_request_is_parsed_or_rejected(parse, seed):
    assert isinstance(LIMITS, HttpConfig)
    assert parse(seed, LIMITS).model == "Echo"

    @fuzz
    @given(OBJECTS | mutations(seed))
    @also("requests", _object)
    def check(body):
        try:
            body = orjson.loads(json.dumps(body))
        except orjson.JSONDecodeError:  # such as a lone surrogate: `read_json` rejects the body
            return
        with Timer():
            error = rejection(lambda: parse(body, LIMITS))
        assert error is None or 400 <= error.status < 500

    check()


async def test_no_body_causes_an_internal_error():
    bodies = st.one_of(
        st.tuples(st.just("/v1/chat/completions"), mutations(CHAT)),
        st.tuples(st.just("/v1/responses"), mutations(RESPONSES)),
    )
    seen = []

    @settings(fuzz, max_examples=max(EXAMPLES // 4, 1))
    @given(bodies)
    def collect(body):
        seen.append(body)

    collect()
    extra = [(path, _object(data)) for data in corpus("requests") for path in ("/v1/chat/completions", "/v1/responses")]
    agent = script_agent(len(seen) + len(extra))
    async with gateway_in_memory({"Echo": agent}) as gateway:
        for path, body in [*extra, *seen]:
            try:
                content = json.dumps(body).encode()
            except ValueError:
                continue
            response = await gateway.http.post(path, content=content, headers={"content-type": "application/json"})
            # 502 if the answer does not have the requested format.
            assert response.status_code in (200, 502) or 400 <= response.status_code < 500, (response.text, content)


def script_agent(turns):
    from agents import Agent

    return Agent(name="Echo", model=script(*(["hello"] * max(turns, 1))))


CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "choices": [
        {
            "index": 0,
            "delta": {
                "role": "assistant",
                "content": "x",
                "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
WHOLE = {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}], "usage": {}}
ITEM = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
CALL = {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{}"}
EVENTS = (
    {"type": "response.created", "response": {"id": "r", "status": "in_progress", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": CALL},
    {"type": "response.function_call_arguments.delta", "item_id": "f", "delta": "{"},
    {"type": "response.function_call_arguments.done", "item_id": "f", "arguments": "{}"},
    {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
    {"type": "response.output_text.delta", "item_id": "m", "delta": "x"},
    {"type": "response.output_text.done", "item_id": "m", "text": "x"},
    {"type": "response.content_part.done", "item_id": "m", "part": {"type": "output_text", "text": "x"}},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [ITEM, CALL], "usage": {}}},
)
FORMATS = st.sampled_from([b"data: %s\n\n", b"data:%s\r\n\r\n", b"%s\n", b"event: x\ndata: %s\n\n", b": x\n%s", b"%s"])
ENDS = st.sampled_from([b"", b"data: [DONE]\n\n", b"[DONE]", b"\r", b"data: ", b"\xef\xbb\xbf", b"\xff\xfe"])


def bodies(*seeds):
    """The bodies of answers, framed in many ways."""
    parts = st.lists(st.tuples(FORMATS, mutations(*seeds) | st.sampled_from(seeds) | JSON), max_size=6)
    framed = st.builds(
        lambda parts, end: b"".join(form % json.dumps(value).encode() for form, value in parts) + end, parts, ENDS
    )
    return framed | st.binary(max_size=64)


def answers(read, content):
    """Read an answer whole, and as a stream in pieces."""
    for payload in ({}, {"response_format": {}, "messages": [], "input": []}):
        with Timer(), contextlib.suppress(DialectError):
            read(content, payload)


def pieces(content):
    cuts = random.Random(len(content))
    while content:
        size = cuts.choice([1, 2, 7, 100, 4096])
        yield content[:size]
        content = content[size:]


def events(parts):
    reader = EventReader()
    found = []
    try:
        for part in parts:
            found += reader.feed(part)
        found += reader.end()
    except DialectError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize(
    ("read", "seeds"), [(chat_api.read, (CHUNK, WHOLE)), (responses_api.read, EVENTS)], ids=["chat", "responses"]
)
def test_an_answer_is_read_or_rejected(read, seeds):
    @fuzz
    @given(bodies(*seeds))
    @also("answers")
    def check(content):
        answers(read, content)

    check()


@fuzz
@given(bodies(CHUNK, *EVENTS))
@also("answers")
def test_the_events_do_not_depend_on_the_pieces(content):
    with Timer():
        whole, pieced = events([content]), events(pieces(content))
    assert whole[0] == pieced[0]
    for event in whole[0]:
        with contextlib.suppress(DialectError):
            [*values(event.data)]


@st.composite
def repetitions(draw, unit):
    """A large input: the beginning of an answer, and one unit many times."""
    one = draw(unit)
    return draw(unit)[: draw(st.integers(0, 200))] + one * (BYTES // max(len(one), 1)) + draw(ENDS)


LINES = st.sampled_from(
    [b"{},\n", b"[\n", b"}\n", b"]\n", b"{\n", b"data: {\n", b"\r", b"data:\n", b"event: x\n", b": x\n"]
)
SHORT = (
    {"choices": [{"delta": {"content": "x"}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":'}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '"x'}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}}]},
    {"choices": [{"delta": {"content": ["x"], "annotations": [1]}}]},
)


@pytest.mark.parametrize(
    ("read", "seeds"), [(chat_api.read, (CHUNK, *SHORT)), (responses_api.read, EVENTS)], ids=["chat", "responses"]
)
def test_a_large_answer_takes_linear_time(read, seeds):
    framed = st.builds(lambda form, value: form % json.dumps(value).encode(), FORMATS, st.sampled_from(seeds))

    @settings(fuzz, max_examples=max(EXAMPLES // 8, 1))
    @given(repetitions(framed | LINES))
    def check(content):
        answers(read, content)
        with Timer():
            events([content])

    check()


LONG = "ab" * (2 * 1024 * 1024)
MESSAGE = [
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "m", "content": []}},
    {"type": "response.output_text.delta", "item_id": "m", "delta": LONG},
]
PENDING = [
    {"type": "response.output_item.added", "output_index": n, "item": {"type": "function_call", "id": f"c{n}"}}
    for n in range(900)
]


@pytest.mark.parametrize(
    ("before", "repeated"),
    [
        (MESSAGE, {"type": "response.output_text.done", "item_id": "m", "text": "ba"}),
        (MESSAGE, {"type": "response.output_text.done", "item_id": "m", "text": "aab"}),
        (MESSAGE, {"type": "response.content_part.done", "part": {"type": "output_text", "text": "x"}}),
        (MESSAGE, {"type": "response.output_text.delta", "item_id": "m", "delta": "x"}),
        (MESSAGE, {"type": "response.refusal.done", "refusal": "x"}),
        (PENDING, {"type": "response.output_text.delta", "item_id": "m", "delta": "x"}),
        (PENDING, {"type": "response.function_call_arguments.delta", "item_id": "c0", "delta": " "}),
        (PENDING, {"type": "response.function_call_arguments.delta", "item_id": "c899", "delta": " "}),
        (PENDING, {"type": "response.function_call_arguments.delta", "delta": " "}),
        ([*PENDING[:1], {"type": "response.function_call_arguments.delta", "delta": " " * 900000}], None),
    ],
)
def test_repeated_events_of_a_response_take_linear_time(before, repeated):
    repeated = repeated or {"type": "response.function_call_arguments.delta", "delta": " "}

    def seconds(number: int) -> float:
        answer = responses_dialect.ResponseAnswer()
        for event in before:
            answer.event(event)
        began = time.process_time()
        with contextlib.suppress(DialectError):
            for _ in range(number):
                answer.event(repeated)
        return time.process_time() - began

    # 50,000 events of 80 characters are 4 MB of an answer.
    assert seconds(50_000) < 2.5


PATTERNS = st.lists(
    st.text(alphabet="ab*/ .Aß", max_size=12) | st.sampled_from(["**", "*", "a/**", "**/b"]), max_size=5
)


@fuzz
@given(PATTERNS, st.text(alphabet="ab/.Aß*", max_size=12))
def test_patterns_match_as_documented(patterns, name):
    parsed = []
    for pattern in patterns:
        with contextlib.suppress(ValueError):
            parsed.append((pattern, parse_pattern(pattern)))
    expected = next((text for text, segments in parsed if _as_expression(segments).fullmatch(name.casefold())), None)
    assert PatternSet(parsed).first(split_name(name)) == expected


def _as_expression(segments):
    """A pattern as a regular expression; each segment is followed by a slash, except the last one."""
    parts = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "**":
            one = "[^/]*" if last else "[^/]*/"
            parts.append(("(?:[^/]*/)*" + one) if last else f"(?:{one})*")
        else:
            parts.append("[^/]*".join(map(re.escape, segment.split("*"))) + ("" if last else "/"))
    return re.compile("".join(parts), re.DOTALL)


@settings(fuzz, max_examples=max(EXAMPLES // 8, 1))
@given(st.text(alphabet="a*/b", min_size=1, max_size=8), st.text(alphabet="ab/", min_size=1, max_size=4))
def test_large_patterns_and_names_take_linear_time(unit, part):
    name = split_name(part * (20_000 // len(part)))
    for pattern in (unit * (2000 // len(unit)), "/".join(["**"] * 200), "**/" * 200 + unit, "*a" * 2000):
        with Timer(), contextlib.suppress(ValueError):
            PatternSet([(pattern, parse_pattern(pattern))]).first(name)


TABLES = [
    "server", "http", "runs", "cors", "clients", "catalog", "state", "agents.A", "sandbox", "plugins.upstreams.x",
    "plugins.security", "plugins.security.keys.a", "plugins.security.limits", "plugins.mcp_tools.servers.a",
    "plugins.gateway_tools", "plugins.tool_policy", "plugins.sessions", "plugins.hot_reload", "plugins.metrics",
]  # fmt: skip
DEFAULTS = (Path(__file__).parents[2] / "gateway_core" / "default.toml").read_text()
KEYS = sorted({*re.findall(r"^#? ?([a-z_]+) = ", DEFAULTS, re.MULTILINE), "hash", "id", "base_url", "url", "api_key"})
LITERALS = st.sampled_from(
    (CORPUS / "literals.txt").read_text().splitlines()
) | st.builds(lambda digits: f'"{"9" * digits}"', st.integers(300, 5000))  # fmt: skip
SETTINGS = st.builds(lambda key, value: f"{key} = {value}", st.sampled_from(KEYS), LITERALS)
TOML = st.lists(
    st.builds(
        lambda table, lines: f"[{table}]\n" + "\n".join(lines),
        st.sampled_from(TABLES),
        st.lists(SETTINGS, max_size=2),
    ),
    max_size=3,
)


def read_settings(file):
    config = load_config(file, environ={})
    for name, cls in enabled_classes(config):
        settings_of(name, cls, config.plugins.get(name, {}), config)


@fuzz
@given(TOML.map("\n".join) | st.text(max_size=40))
@also("settings", lambda data: data.decode(errors="surrogateescape"))
def test_settings_are_converted_or_rejected(text):
    file = Path(os.environ["PYTEST_FUZZ_FOLDER"]) / "gateway.toml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with Timer():
        error = rejection(lambda: read_settings(file))
    assert error is None or str(error)


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    os.environ["PYTEST_FUZZ_FOLDER"] = str(tmp_path_factory.mktemp("settings"))
    yield
    del os.environ["PYTEST_FUZZ_FOLDER"]
