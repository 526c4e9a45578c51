"""The real command, on a real port, in front of a real HTTP upstream."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from tests.support.upstream import FakeUpstream

START_SECONDS = 60.0
STOP_SECONDS = 40.0
COMMAND = Path(sys.executable).with_name("agent-gateway")
SERVES_AT = re.compile(r"listening on (http://\S+)/v1")


class Server:
    """A running `agent-gateway serve`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output: list[str] = []
        self.url = ""
        self._client: openai.OpenAI | None = None
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := SERVES_AT.search(line):
                self.url = found[1]
            if line.startswith("Press Ctrl+C"):
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        assert self._ready.wait(START_SECONDS), "".join(self.output)
        assert self.url, "".join(self.output)

    @property
    def text(self) -> str:
        """Everything that it printed so far."""
        return "".join(self.output)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self) -> openai.OpenAI:
        """The official client."""
        if self._client is None:
            self._client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=20)
        return self._client

    def async_client(self) -> openai.AsyncOpenAI:
        """The official asynchronous client."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=20)

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self._client is not None:
            self._client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def serving(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, wait: bool = True
) -> Iterator[Server]:
    """Start the command in a folder, and stop it when the block is left.

    Args:
        folder: The working directory.
        arguments: Further arguments of `agent-gateway serve`.
        environment: Additional variables.
        wait: Whether to wait until the agents are loaded.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEWAY_"))}
    process = subprocess.Popen(
        [str(COMMAND), "serve", "--port", "0", *arguments],
        cwd=folder,
        env={**clean, "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process)
    try:
        if wait:
            server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    """A server that speaks OpenAI's protocol."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def records(upstream: FakeUpstream) -> Callable[[int], list]:
    """The requests that the upstream received during the test."""
    upstream.reset()
    return upstream.wait_for_records
