"""`kill -9` at any moment: what was granted is in force after it, and the file stays whole."""

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
        async with OverrideManager(OverrideSettings(), Path(sys.argv[1]), lambda event: None) as store:
            for number in range(100_000):
                override = await store.grant(Grant("agent", f"labs/A{number}", "ann", "demo", 3600.0), "root")
                print(number, override.id, flush=True)
                if number % 2:
                    await store.revoke(override.id, "root")
                    print("revoked", override.id, flush=True)

    asyncio.run(main())
"""


async def in_force(folder):
    async with OverrideManager(OverrideSettings(), folder, lambda event: None) as store:
        return store, {override.id for override, _ in store.active()}


@contextlib.contextmanager
def granting(folder):
    """Another process that grants and revokes, and tells each when it is done."""
    command = [sys.executable, "-c", textwrap.dedent(GRANTING), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


async def test_a_grant_holds_although_the_process_was_killed_before_it_was_used(tmp_path):
    with granting(tmp_path) as process:
        _, granted = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    store, ids = await in_force(tmp_path)
    assert granted in ids
    assert store.deciding(AccessQuery("agent", "labs/A0", "ann")).id == granted


async def test_killed_again_and_again_nothing_that_was_told_is_lost(tmp_path):
    must, must_not = set(), set()
    for round_ in range(15):
        with granting(tmp_path) as process:
            lines = [process.stdout.readline() for _ in range(3)]
            time.sleep(0.003 * round_)  # another moment each time
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        told = [line.split() for line in lines if line.endswith("\n")]
        gone = {override_id for word, override_id in told if word == "revoked"}
        here = {override_id for word, override_id in told if word != "revoked"} - gone
        if here and told[-1][0] != "revoked" and int(told[-1][0]) % 2:
            here.discard(told[-1][1])  # its revocation may have been under way
        must |= here
        must_not |= gone
    _, ids = await in_force(tmp_path)
    assert must
    assert must <= ids
    assert not must_not & ids
