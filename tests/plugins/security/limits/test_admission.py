"""How much is allowed, told in OpenAI's headers, and refused with 429 when it is used up."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess

import pytest
from agents import Agent, function_tool
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.limits.admission import HeadersInReach, Limits
from gateway_plugins.security.limits.token_budget import TokenBudget
from gateway_plugins.security.limits.window_storage import WindowStorage
from gateway_plugins.security.settings import LimitSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import RateLimitError as OpenAIRateLimitError
from starlette.middleware import Middleware

from gateway_core import ConfigError, RateLimitError, Usage, hookimpl
from gateway_core.testing import call, gateway_in_memory, script

HELLO = [{"role": "user", "content": "hello"}]
REDIS = shutil.which("redis-server")


class Times:
    """Two clocks that a test sets."""

    def __init__(self):
        self.wall, self.steady = 1_000_000 * 86400.0 + 82800, 50.0  # 23:00
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def pass_(self, seconds):
        self.wall += seconds
        self.steady += seconds


def limits(times=None, folder=None, reported=None, **given):
    report = (lambda error: None) if reported is None else reported.append
    return Limits(LimitSettings(**given), folder, report, times.clock if times else None)


async def allowed(one: Limits, times: int, who="ann", agent="X") -> int:
    """How many of so many requests are let through."""
    let_through = 0
    for _ in range(times):
        with contextlib.suppress(RateLimitError):
            await one.take(who, agent)
            let_through += 1
    return let_through


# Requests


async def test_nothing_is_limited_unless_it_is_set():
    one = limits()
    assert await allowed(one, 1000) == 1000
    assert await one.take("ann", "X") is None


async def test_each_key_has_its_own_minute():
    times = Times()
    one = limits(times, requests_per_minute=3)
    assert await allowed(one, 10) == 3
    assert await allowed(one, 10, who="bob") == 3
    times.pass_(59.9)
    assert await allowed(one, 1) == 0
    times.pass_(0.2)
    assert await allowed(one, 10) == 3


async def test_each_agent_has_its_own_whoever_asks_and_however_it_is_written():
    one = limits(agent_requests_per_minute=3)
    assert await allowed(one, 2, who="ann", agent="labs/X") == 2
    assert await allowed(one, 2, who="bob", agent="LABS/x") == 1
    assert await allowed(one, 2, who="ann", agent="X") == 2


async def test_all_together():
    one = limits(total_requests_per_minute=3)
    assert await allowed(one, 2, who="ann", agent="X") == 2
    assert await allowed(one, 2, who="bob", agent="Y") == 1


async def test_the_narrowest_is_told():
    one = limits(requests_per_minute=10, total_requests_per_minute=5)
    window = await one.take("ann", "X")
    assert (window.limit, window.remaining) == (5, 4)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e8])
async def test_a_clock_that_is_set_changes_nothing(jump):
    times = Times()
    one = limits(times, requests_per_minute=3)
    assert await allowed(one, 10) == 3
    times.wall += jump
    with pytest.raises(RateLimitError) as refused:
        await one.take("ann", "X")
    assert 0 <= refused.value.retry_after <= 60
    times.steady += 61
    assert await allowed(one, 10) == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(-1e6, 1e6)), max_size=60), st.integers(1, 5))
def test_no_window_lets_more_through_than_its_limit(steps, limit):
    times = Times()
    one = limits(times, requests_per_minute=limit)
    let_through = []

    async def live():
        for wait, jump in steps:
            times.steady += wait
            times.wall += jump
            if await allowed(one, 1):
                let_through.append(times.steady)

    asyncio.run(live())
    # Windows follow each other, so any minute touches two at most.
    for start in let_through:
        assert sum(start <= moment < start + 60 for moment in let_through) <= 2 * limit


async def test_counts_that_are_over_are_not_kept():
    times = Times()
    storage = WindowStorage(times.clock)
    for number in range(50_000):
        await storage.incr(f"k{number}", 60)
        times.pass_(0.1)
    assert len(storage._counts) < 2048


# Runs at a time


async def test_so_many_runs_at_a_time_and_a_place_is_free_when_one_is_over():
    one = limits(concurrent_runs=2, total_concurrent_runs=3)
    async with contextlib.AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(one.admission("ann", "X"))
        with pytest.raises(RateLimitError, match="'ann' may make at most 2 runs at a time") as refused:
            await held.enter_async_context(one.admission("ann", "Y"))
        assert (refused.value.status, refused.value.code) == (429, "too_many_runs")
        await held.enter_async_context(one.admission("bob", "X"))
        with pytest.raises(RateLimitError, match="the gateway takes at most 3 runs"):
            await held.enter_async_context(one.admission("bob", "X"))
        assert one.running() == {"key ann": 2, "key bob": 1, "total all": 3}
    assert one.running() == {}


async def test_whatever_ends_it_a_place_is_given_back():
    one = limits(agent_concurrent_runs=1, requests_per_minute=2)
    for problem in (ValueError, asyncio.CancelledError):
        with pytest.raises(problem):
            async with one.admission("ann", "X"):
                raise problem
    with pytest.raises(RateLimitError, match="2 requests in a minute"):
        async with one.admission("ann", "X"):
            pass
    assert one.running() == {}


# Tokens


async def test_a_day_has_so_many_tokens_for_each_key(tmp_path):
    times = Times()
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        async with one.admission("ann", "X"):
            one.spent("ann", Usage(1, 60, 39))
        async with one.admission("ann", "X"):  # one token is left; what a run takes is known when it ends
            one.spent("ann", Usage(1, 60, 39))
        with pytest.raises(RateLimitError) as refused:
            async with one.admission("ann", "X"):
                pass
        assert (refused.value.code, refused.value.retry_after) == ("token_budget_used", 3600)
        async with one.admission("bob", "X"):
            pass
        times.pass_(3600)
        async with one.admission("ann", "X"):
            pass


async def test_used_tokens_are_remembered_over_a_restart(tmp_path):
    times = Times()
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        one.spent("ann", Usage(1, 60, 40))
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        with pytest.raises(RateLimitError):
            async with one.admission("ann", "X"):
                pass
        times.wall -= 3600  # set back within the day: still used
        with pytest.raises(RateLimitError):
            async with one.admission("ann", "X"):
                pass
    assert (tmp_path / "tokens.db").stat().st_mode & 0o777 == 0o600


async def test_used_tokens_are_written_while_it_runs_and_old_days_go(tmp_path):
    times = Times()
    async with TokenBudget(tmp_path, times.clock) as budget:
        budget.add("ann", 5)
        budget.add("ann", 6)
        async with asyncio.timeout(10):
            while not (rows := in_file(tmp_path)):
                await asyncio.sleep(0.01)
        assert [row[1:] for row in rows] == [("ann", 11)]
        times.pass_(3 * 86400)
        budget.add("ann", 7)
        assert budget.used("ann") == 7
    assert [row[1:] for row in in_file(tmp_path)] == [("ann", 7)]


async def test_a_disk_that_takes_nothing_loses_no_count(tmp_path, caplog):
    times = Times()
    async with TokenBudget(tmp_path, times.clock) as budget:
        other = sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)
        other.execute("ALTER TABLE used RENAME TO gone")
        other.execute("CREATE TABLE used (other)")
        budget.add("ann", 5)
        async with asyncio.timeout(10):
            while "tried again" not in caplog.text:
                await asyncio.sleep(0.01)
        assert budget.used("ann") == 5
        other.execute("DROP TABLE used")
        other.execute("ALTER TABLE gone RENAME TO used")
        other.close()
    assert [row[1:] for row in in_file(tmp_path)] == [("ann", 5)]


def in_file(folder):
    connection = sqlite3.connect(folder / "tokens.db")
    try:
        return connection.execute("SELECT * FROM used").fetchall()
    finally:
        connection.close()


async def test_a_broken_file_of_tokens_is_told_at_the_start(tmp_path):
    (tmp_path / "tokens.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="used tokens"):
        async with limits(folder=tmp_path, tokens_per_day=1):
            pass


# Bad credentials


async def test_bad_credentials_are_counted_for_each_address():
    one = limits(failed_authentications_per_minute=3)

    async def tries(address, count):
        for _ in range(count):
            await one.failed_authentication(address)

    await tries("192.0.2.1", 3)
    with pytest.raises(RateLimitError) as refused:
        await tries("192.0.2.1", 1)
    assert (refused.value.status, refused.value.code) == (429, "too_many_failed_authentications")
    await tries("192.0.2.2", 3)
    await tries("2001:db8::1", 2)
    with pytest.raises(RateLimitError):  # the same machine may have all addresses of its network
        await tries("2001:db8::ffff", 2)
    await tries("2001:db8:0:1::1", 3)
    with pytest.raises(RateLimitError):
        await tries("::ffff:192.0.2.1", 1)
    await tries("no address", 3)


# A storage that several gateways share


@contextlib.contextmanager
def silent_server():
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def no_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


@pytest.mark.parametrize("server", [silent_server, no_server])
async def test_a_storage_that_does_not_answer_is_left_for_a_while(server):
    pytest.importorskip("redis")
    reported, times = [], Times()
    with server() as port:
        uri = f"redis://127.0.0.1:{port}"
        async with limits(times, reported=reported, requests_per_minute=3, storage=uri) as one:
            assert one._windows.shared
            assert await allowed(one, 10) == 3
            assert not one._windows.shared
            assert [error.code for error in reported] == ["limit_storage_failed"]
            times.pass_(30)
            assert one._windows.shared  # tried again
            assert await allowed(one, 1) == 0
    assert len(reported) == 2


@pytest.mark.parametrize("uri", ["nonsense", "redis+cluster://x", "bogus://user:secret@x", "://"])
def test_a_storage_that_is_none_is_told_at_the_start_without_its_password(uri):
    with pytest.raises(ConfigError) as refused:
        limits(storage=uri)
    assert "secret" not in str(refused.value)


@contextlib.contextmanager
def redis_server(folder):
    with no_server() as port:
        pass
    command = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
        yield port, process
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.skipif(not REDIS, reason="redis-server is not installed")
async def test_two_gateways_count_together_and_alone_when_redis_hangs(tmp_path):
    with redis_server(tmp_path) as (port, process):
        uri = f"redis://127.0.0.1:{port}"
        one, other = (limits(requests_per_minute=10, storage=uri) for _ in range(2))
        async with one, other:
            assert await allowed(one, 7) + await allowed(other, 7) == 10
            with pytest.raises(RateLimitError) as refused:
                await one.take("ann", "X")
            assert 0 < refused.value.retry_after <= 60
            os.kill(process.pid, signal.SIGSTOP)
            assert await allowed(one, 20) == 10
            assert not one._windows.shared


# Over HTTP


def limiting(one):
    class Limiting:
        """What the plugin does with it."""

        def __init__(self, *_):
            pass

        @hookimpl
        def middleware(self):
            return [Middleware(HeadersInReach)]

        @hookimpl
        def admission(self, run, entry):
            return one.admission(run.principal.id, entry.id)

        @hookimpl
        def on_run_end(self, run, outcome):
            one.spent(run.principal.id, outcome.usage)

    return Limiting


def shown(headers):
    return {
        name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if name.startswith("x-ratelimit-")
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_carry_what_is_left_and_refusals_say_when(stream):
    one = limits(Times(), requests_per_minute=2, tokens_per_day=1000)
    agent = Agent(name="x", model=script("one", "two", "three"))
    async with gateway_in_memory({"X": agent}, plugins={"limits": limiting(one)}) as g:
        ask = g.openai.chat.completions.with_raw_response.create
        for left in (1, 0):
            answer = await ask(model="X", messages=HELLO, stream=stream)
            if stream:
                assert [chunk async for chunk in answer.parse()]
            assert shown(answer.headers) == {
                "limit-requests": "2",
                "remaining-requests": str(left),
                "reset-requests": "60s",
                "limit-tokens": "1000",
                "remaining-tokens": "1000",
                "reset-tokens": "3600s",
            }
        with pytest.raises(OpenAIRateLimitError) as refused:
            await ask(model="X", messages=HELLO, stream=stream)
        assert refused.value.body["code"] == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "60"
        assert shown(refused.value.response.headers)["remaining-requests"] == "0"
        assert shown((await g.http.get("/v1/models")).headers) == {}
    assert len(g.ended) == 2


async def test_a_run_holds_its_place_until_its_client_leaves():
    one = limits(concurrent_runs=1)
    reached = asyncio.Event()

    @function_tool
    async def hang() -> str:
        reached.set()
        await asyncio.Event().wait()
        return "never"

    agent = Agent(name="x", model=script(["so far", call("hang")], "done"), tools=[hang])
    async with gateway_in_memory({"X": agent}, plugins={"limits": limiting(one)}) as g:
        stream = await g.openai.chat.completions.create(model="X", messages=HELLO, stream=True)
        await reached.wait()
        with pytest.raises(OpenAIRateLimitError, match="at a time"):
            await g.openai.chat.completions.create(model="X", messages=HELLO)
        await stream.close()
        assert one.running() == {}
        answer = await g.openai.chat.completions.create(model="X", messages=HELLO)
        assert answer.choices[0].message.content == "done"


async def test_tokens_are_those_that_the_upstream_counted():
    one = limits(Times(), tokens_per_day=1000)
    agent = Agent(name="x", model=script("one", "two"))
    async with gateway_in_memory({"X": agent}, plugins={"limits": limiting(one)}) as g:
        await g.openai.chat.completions.create(model="X", messages=HELLO)
        [(_, outcome)] = g.ended
        answer = await g.openai.chat.completions.with_raw_response.create(model="X", messages=HELLO)
        assert shown(answer.headers)["remaining-tokens"] == str(1000 - outcome.usage.total_tokens)
