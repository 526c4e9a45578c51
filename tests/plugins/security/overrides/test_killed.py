"""SIGKILL at any time: granted overrides stay active, and the database stays intact."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

from gateway_plugins.security.access_query import AccessQuery
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import OverrideSettings

GRANTING = """
    import asyncio, sys
    from pathlib import Path
    from gateway_plugins.security.overrides.grant_request import Grant
    from gateway_plugins.security.overrides.manager import OverrideManager
    from gateway_plugins.security.settings import OverrideSettings

    async def main():
        async with OverrideManager(OverrideSettings(), Path(sys.argv[1]), lambda *_: None) as store:
            for number in range(100_000):
                override = await store.grant(Grant("agent", f"labs/A{number}", "ann", "demo", 3600.0), "root")
                print(number, override.id, flush=True)
                if number % 2:
                    await store.revoke(override.id, "root")
                    print("revoked", override.id, flush=True)

    asyncio.run(main())
"""


async def active_after_restart(folder):
    async with OverrideManager(OverrideSettings(), folder, lambda *_: None) as store:
        return store, {override.id for override, _ in store.active()}


@contextlib.contextmanager
def granting(folder):
    """Another process that grants and revokes, and prints each completed change."""
    command = [sys.executable, "-c", textwrap.dedent(GRANTING), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


async def test_a_grant_survives_sigkill(tmp_path):
    with granting(tmp_path) as process:
        _, granted = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    store, ids = await active_after_restart(tmp_path)
    assert granted in ids
    assert store.deciding(AccessQuery("agent", "labs/A0", "ann")).id == granted


async def test_repeated_sigkills_lose_no_confirmed_change(tmp_path):
    must, must_not = set(), set()
    for round_ in range(15):
        with granting(tmp_path) as process:
            lines = [process.stdout.readline() for _ in range(3)]
            time.sleep(0.003 * round_)  # at a different time each round
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        confirmed = [line.split() for line in lines if line.endswith("\n")]
        gone = {override_id for word, override_id in confirmed if word == "revoked"}
        here = {override_id for word, override_id in confirmed if word != "revoked"} - gone
        if here and confirmed[-1][0] != "revoked" and int(confirmed[-1][0]) % 2:
            here.discard(confirmed[-1][1])  # its revocation may have been in progress
        must |= here
        must_not |= gone
    _, ids = await active_after_restart(tmp_path)
    assert must
    assert must <= ids
    assert not must_not & ids
