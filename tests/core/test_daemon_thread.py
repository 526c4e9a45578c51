"""Calls in daemon threads and their exceptions."""

import asyncio

import pytest

from gateway_core.daemon_thread import DaemonThread, ThreadExitError


def fail(error):
    raise error


async def test_the_result_and_the_exception_of_a_call_are_returned():
    assert await DaemonThread(lambda: 3).result() == 3
    with pytest.raises(ValueError, match="no"):
        await DaemonThread(lambda: fail(ValueError("no"))).result()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()])
async def test_exceptions_that_a_future_cannot_carry_are_wrapped(error):
    with pytest.raises(ThreadExitError) as caught:
        await DaemonThread(lambda: fail(error)).result()
    assert caught.value.__cause__ is error


async def test_a_call_ends_although_no_event_loop_can_be_created(monkeypatch):
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: fail(OSError(24, "Too many open files")))
    async with asyncio.timeout(30):
        with pytest.raises(OSError, match="Too many open files"):
            await DaemonThread(lambda: 3).result()
    assert loop is asyncio.get_running_loop()
