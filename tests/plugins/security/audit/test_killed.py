"""SIGKILL during writes: the audit log stays valid, and no confirmed record is lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from gateway_plugins.security.audit.hash_chain import chain_files
from gateway_plugins.security.audit.verify import verify

WRITING = """
    import asyncio, sys
    from pathlib import Path
    from gateway_plugins.security.audit.log import AuditLog
    from gateway_plugins.security.settings import AuditSettings

    async def main():
        settings = AuditSettings(fsync=sys.argv[2], max_size=20_000)
        async with AuditLog(settings, Path(sys.argv[1]), print) as log:
            for number in range(1_000_000):
                for _ in range(number % 7):
                    log.event("filler", text="x" * (number % 50))
                log.event("confirmed", number=f"{sys.argv[3]}.{number}", admin=True)
                await log.settled()
                print(f"{sys.argv[3]}.{number}", flush=True)

    asyncio.run(main())
"""


@contextlib.contextmanager
def writing(folder, fsync, round_):
    command = [sys.executable, "-c", textwrap.dedent(WRITING), str(folder), fsync, str(round_)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.mark.parametrize("fsync", ["admin", "never"])
def test_repeated_sigkills(tmp_path, fsync):
    confirmed = []
    for round_ in range(8):
        with writing(tmp_path, fsync, round_) as process:
            lines = [process.stdout.readline()]
            time.sleep(0.007 * round_)  # at a different time each round
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
        confirmed += [line.strip() for line in lines if line.endswith("\n")]
        report = verify(tmp_path / "audit.jsonl")
        assert report.ok, report.problems
    assert len(confirmed) >= 8
    records = [
        json.loads(line)
        for file in chain_files(tmp_path / "audit.jsonl")
        for line in file.read_text().splitlines()
        if line.endswith('"}')
    ]
    written = [record["number"] for record in records if record["event"] == "confirmed"]
    assert set(confirmed) <= set(written)
    assert len(written) == len(set(written))
