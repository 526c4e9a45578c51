"""Limits: OpenAI's rate limit headers, and 429 when a limit is exceeded."""

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
from gateway_plugins.security.limits.admission import Limits, RateLimitHeaders
from gateway_plugins.security.limits.rate_windows import Windows
from gateway_plugins.security.limits.token_budget import TokenBudget
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
    """Send requests; return the number of admitted ones."""
    admitted = 0
    for _ in range(times):
        with contextlib.suppress(RateLimitError):
            await one.count_request(who, agent)
            admitted += 1
    return admitted


# Requests


async def test_no_limits_by_default():
    one = limits()
    assert await allowed(one, 1000) == 1000
    assert await one.count_request("ann", "X") is None


async def test_requests_are_counted_per_key():
    times = Times()
    one = limits(times, requests_per_minute=3)
    assert await allowed(one, 10) == 3
    assert await allowed(one, 10, who="bob") == 3
    times.pass_(59.9)
    assert await allowed(one, 1) == 0
    times.pass_(0.2)
    assert await allowed(one, 10) == 3


async def test_requests_are_counted_per_agent_for_all_callers_and_case_insensitively():
    one = limits(agent_requests_per_minute=3)
    assert await allowed(one, 2, who="ann", agent="labs/X") == 2
    assert await allowed(one, 2, who="bob", agent="LABS/x") == 1
    assert await allowed(one, 2, who="ann", agent="X") == 2


async def test_requests_are_counted_for_the_whole_gateway():
    one = limits(total_requests_per_minute=3)
    assert await allowed(one, 2, who="ann", agent="X") == 2
    assert await allowed(one, 2, who="bob", agent="Y") == 1


async def test_the_window_with_the_fewest_remaining_requests_is_returned():
    one = limits(requests_per_minute=10, total_requests_per_minute=5)
    window = await one.count_request("ann", "X")
    assert (window.limit, window.remaining) == (5, 4)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e8])
async def test_setting_the_wall_clock_does_not_affect_windows(jump):
    times = Times()
    one = limits(times, requests_per_minute=3)
    assert await allowed(one, 10) == 3
    times.wall += jump
    with pytest.raises(RateLimitError) as refused:
        await one.count_request("ann", "X")
    assert 0 <= refused.value.retry_after <= 60
    times.steady += 61
    assert await allowed(one, 10) == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(-1e6, 1e6)), max_size=60), st.integers(1, 5))
def test_a_window_never_admits_more_than_its_limit(steps, limit):
    times = Times()
    one = limits(times, requests_per_minute=limit)
    admitted = []

    async def live():
        for wait, jump in steps:
            times.steady += wait
            times.wall += jump
            if await allowed(one, 1):
                admitted.append(times.steady)

    asyncio.run(live())
    # Windows do not overlap, so any minute spans at most two.
    for start in admitted:
        assert sum(start <= moment < start + 60 for moment in admitted) <= 2 * limit


async def test_expired_counts_are_pruned():
    times = Times()
    windows = Windows("memory://", print, times.clock)
    for number in range(50_000):
        await windows.count(1, "key", f"k{number}")
        times.pass_(0.1)
    assert len(windows._local) < 2048


# Concurrent runs


async def test_concurrent_runs_are_limited_and_slots_are_released():
    one = limits(concurrent_runs=2, total_concurrent_runs=3)
    async with contextlib.AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(one.admission("ann", "X"))
        with pytest.raises(RateLimitError, match="too many concurrent runs for 'ann'") as refused:
            await held.enter_async_context(one.admission("ann", "Y"))
        assert (refused.value.status, refused.value.code) == (429, "too_many_runs")
        await held.enter_async_context(one.admission("bob", "X"))
        with pytest.raises(RateLimitError, match="too many concurrent runs for the gateway"):
            await held.enter_async_context(one.admission("bob", "X"))
        assert one.running() == {"key ann": 2, "key bob": 1, "total all": 3}
    assert one.running() == {}


async def test_a_slot_is_released_after_errors_and_cancellation():
    one = limits(agent_concurrent_runs=1, requests_per_minute=2)
    for problem in (ValueError, asyncio.CancelledError):
        with pytest.raises(problem):
            async with one.admission("ann", "X"):
                raise problem
    with pytest.raises(RateLimitError, match="too many requests for"):
        async with one.admission("ann", "X"):
            pass
    assert one.running() == {}


# Tokens


async def test_tokens_per_day_are_limited_per_key(tmp_path):
    times = Times()
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        async with one.admission("ann", "X"):
            one.add_usage("ann", Usage(1, 60, 39))
        async with one.admission("ann", "X"):  # one token is left; usage is known when the run ends
            one.add_usage("ann", Usage(1, 60, 39))
        with pytest.raises(RateLimitError) as refused:
            async with one.admission("ann", "X"):
                pass
        assert (refused.value.code, refused.value.retry_after) == ("token_budget_used", 3600)
        async with one.admission("bob", "X"):
            pass
        times.pass_(3600)
        async with one.admission("ann", "X"):
            pass


async def test_token_counts_survive_a_restart(tmp_path):
    times = Times()
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        one.add_usage("ann", Usage(1, 60, 40))
    async with limits(times, tmp_path, tokens_per_day=100) as one:
        with pytest.raises(RateLimitError):
            async with one.admission("ann", "X"):
                pass
        times.wall -= 3600  # set back within the same day
        with pytest.raises(RateLimitError):
            async with one.admission("ann", "X"):
                pass
    assert (tmp_path / "tokens.db").stat().st_mode & 0o777 == 0o600


async def test_token_counts_are_flushed_periodically_and_old_days_deleted(tmp_path):
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


async def test_failed_writes_lose_no_token_counts(tmp_path, caplog):
    times = Times()
    async with TokenBudget(tmp_path, times.clock) as budget:
        other = sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)
        other.execute("ALTER TABLE used RENAME TO gone")
        budget.add("ann", 5)
        async with asyncio.timeout(10):
            while "could not write token counts" not in caplog.text:
                await asyncio.sleep(0.01)
        assert budget.used("ann") == 5
        other.execute("ALTER TABLE gone RENAME TO used")
        other.close()
    assert [row[1:] for row in in_file(tmp_path)] == [("ann", 5)]


def in_file(folder):
    connection = sqlite3.connect(folder / "tokens.db")
    try:
        return connection.execute("SELECT * FROM used").fetchall()
    finally:
        connection.close()


async def test_a_corrupt_token_database_is_a_config_error(tmp_path):
    (tmp_path / "tokens.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="database of token counts"):
        async with limits(folder=tmp_path, tokens_per_day=1):
            pass


# Failed authentications


async def test_failed_authentications_are_counted_per_address():
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
    with pytest.raises(RateLimitError):  # one host may use all addresses of its network
        await tries("2001:db8::ffff", 2)
    await tries("2001:db8:0:1::1", 3)
    with pytest.raises(RateLimitError):
        await tries("::ffff:192.0.2.1", 1)
    await tries("no address", 3)


# Shared storage


@contextlib.contextmanager
def silent_server():
    """Accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def no_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


@pytest.mark.parametrize("server", [silent_server, no_server])
async def test_an_unresponsive_storage_opens_the_circuit_breaker(server):
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
            assert one._windows.shared  # retry
            assert await allowed(one, 1) == 0
    assert len(reported) == 2


@pytest.mark.parametrize("uri", ["nonsense", "redis+cluster://x", "bogus://user:secret@x", "://"])
async def test_an_unsupported_storage_is_a_config_error_without_the_password(uri):
    with pytest.raises(ConfigError) as refused:
        async with limits(storage=uri):
            pass
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
async def test_gateways_share_counts_and_fall_back_to_memory_when_redis_hangs(tmp_path):
    with redis_server(tmp_path) as (port, process):
        uri = f"redis://127.0.0.1:{port}"
        one, other = (limits(requests_per_minute=10, storage=uri) for _ in range(2))
        async with one, other:
            assert await allowed(one, 7) + await allowed(other, 7) == 10
            with pytest.raises(RateLimitError) as refused:
                await one.count_request("ann", "X")
            assert 0 < refused.value.retry_after <= 60
            os.kill(process.pid, signal.SIGSTOP)
            assert await allowed(one, 20) == 10
            assert not one._windows.shared


# Over HTTP


def limiting(one):
    class Limiting:
        """A plugin that uses the limits as `security` does."""

        def __init__(self, *_):
            pass

        @hookimpl
        def middleware(self):
            return [Middleware(RateLimitHeaders)]

        @hookimpl
        def admission(self, run, entry):
            return one.admission(run.principal.id, entry.id)

        @hookimpl
        def on_run_end(self, run, outcome):
            one.add_usage(run.principal.id, outcome.usage)

    return Limiting


def shown(headers):
    return {
        name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if name.startswith("x-ratelimit-")
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_have_rate_limit_headers_and_refusals_have_retry_after(stream):
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


async def test_a_run_holds_its_slot_until_the_client_disconnects():
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
        with pytest.raises(OpenAIRateLimitError, match="too many concurrent runs"):
            await g.openai.chat.completions.create(model="X", messages=HELLO)
        await stream.close()
        assert one.running() == {}
        answer = await g.openai.chat.completions.create(model="X", messages=HELLO)
        assert answer.choices[0].message.content == "done"


async def test_tokens_are_counted_as_the_upstream_reports_them():
    one = limits(Times(), tokens_per_day=1000)
    agent = Agent(name="x", model=script("one", "two"))
    async with gateway_in_memory({"X": agent}, plugins={"limits": limiting(one)}) as g:
        await g.openai.chat.completions.create(model="X", messages=HELLO)
        [(_, outcome)] = g.ended
        answer = await g.openai.chat.completions.with_raw_response.create(model="X", messages=HELLO)
        assert shown(answer.headers)["remaining-tokens"] == str(1000 - outcome.usage.total_tokens)
