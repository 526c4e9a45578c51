"""The length of a request's and of a reload's way through the code: files entered, and moves from one file to another.

    python benchmarks/paths.py

A move is a call of a function of the gateway or a plugin from a function in another of their files; methods that attrs
and cattrs generate do not count. The counts do not depend on the machine.
"""

import asyncio
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

from agents import Agent

import gateway_core
from gateway_core.testing import gateway_in_memory, script

OURS = (f"{Path(gateway_core.__file__).parent}/", "/gateway_plugins/")
AGENT = 'from agents import Agent\n\nagent = Agent(name="{}", instructions="Be brief.")\n'


class Trace:
    """Counts calls between files while it is active."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.moves = 0

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if not any(part in file for part in OURS):
            return
        self.files[file] += 1
        caller = frame.f_back
        while caller is not None and not any(part in caller.f_code.co_filename for part in OURS):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename != file:
            self.moves += 1

    async def of(self, work: Callable[[], Awaitable[Any]]) -> "Trace":
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)
        try:
            await work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return self

    def report(self, name: str) -> str:
        return f"{name}: {len(self.files)} files, {self.moves} moves"


async def measure() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "First").mkdir()
        (folder / "First" / "agent.py").write_text(AGENT.format("First"))
        model = script(*["Hello."] * 8)
        config = {"plugins": {"folder_discovery": {"path": place}}}
        async with gateway_in_memory({"A": Agent(name="a")}, folder=folder, model=model, config=config) as g:

            async def chat(stream: bool) -> None:
                body = {"model": "A", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
                answer = await g.http.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text

            async def drop_in() -> None:
                (folder / "Second").mkdir()
                (folder / "Second" / "agent.py").write_text(AGENT.format("Second"))
                catalog = await g.gateway.reload()
                assert "Second" in catalog.agents

            for stream in (False, True):
                await chat(stream)
            print((await Trace().of(lambda: chat(False))).report("a chat"))
            print((await Trace().of(lambda: chat(True))).report("a streamed chat"))
            print((await Trace().of(drop_in)).report("a dropped-in file"))


if __name__ == "__main__":
    asyncio.run(measure())
