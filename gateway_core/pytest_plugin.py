"""Provides pytest fixtures for agent authors: `pytest_plugins = ["gateway_core.pytest_plugin"]` in a `conftest.py`.

The fixtures serve an agent with a real in-memory gateway and a scripted model, and send it HTTP requests. Paths of
agents, and the gateway tools in `./tools`, are relative to the project: the nearest folder above the test that contains
`gateway.toml` or the folder `agents`.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agents.testing import ScriptedModel
from attrs import frozen
from openai.types.chat import ChatCompletionChunk

from gateway_core.testing import Call, GatewayInMemory, gateway_in_memory, script
from gateway_core.testing import import_agent as import_agent_at

MODEL = "agent"
Turn = str | Call | Sequence[str | Call]


@frozen
class Answer:
    """The response that a client received, and the outcome of the run."""

    text: str
    chunks: tuple[ChatCompletionChunk, ...]
    """The chunks of the stream, as the official OpenAI client parsed them."""
    finish_reason: str | None
    tools: tuple[str, ...]
    """The tools whose output was returned to the model, in order."""
    cancelled: bool
    """Whether the client disconnect cancelled the run."""


class ServedForTest:
    """A served agent. The fixture `serve_agent` creates it."""

    def __init__(self, exported: object, model: ScriptedModel, tools: Path) -> None:
        self.model = model
        """The scripted model. `model.calls` contains the requests that it received."""
        self._runner = asyncio.Runner()
        self._context: AbstractAsyncContextManager[GatewayInMemory] = gateway_in_memory(
            {MODEL: exported}, tools=tools, model=model
        )
        self._gateway = self._runner.run(self._context.__aenter__())
        if (broken := self._gateway.gateway.catalog.broken.get(MODEL)) is not None:
            self.close()
            raise broken.error

    def ask(self, text: str | Sequence[dict[str, Any]], *, leave_after: int | None = None) -> Answer:
        """Send a streamed request and return the answer.

        Args:
            text: The user's message, or a list of messages.
            leave_after: Disconnect after this many parts of text, like a user who presses stop.

        Raises:
            openai.APIError: The run failed.
        """
        return self._runner.run(self._ask(text, leave_after))

    def close(self) -> None:
        """Stop the gateway."""
        self._runner.run(self._context.__aexit__(None, None, None))
        self._runner.close()

    async def _ask(self, text: str | Sequence[dict[str, Any]], leave_after: int | None) -> Answer:
        messages: Any = [{"role": "user", "content": text}] if isinstance(text, str) else list(text)
        calls_before = len(self.model.calls)
        stream = await self._gateway.openai.chat.completions.create(model=MODEL, messages=messages, stream=True)
        chunks: list[ChatCompletionChunk] = []
        pieces: list[str] = []
        async for chunk in stream:
            chunks.append(chunk)
            pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            if leave_after is not None and len(pieces) >= leave_after:
                break
        await stream.close()
        last = chunks[-1].choices[0].finish_reason if chunks and chunks[-1].choices else None
        tools = _tools(self.model.calls[calls_before:])
        return Answer("".join(pieces), tuple(chunks), last, tools, self._gateway.ended[-1][1].cancelled)


@pytest.fixture
def import_agent(request: pytest.FixtureRequest) -> Callable[[str], ModuleType]:
    """`import_agent("agents/Greeter")` imports a drop-in agent, and returns its module."""
    return lambda path: import_agent_at(_project(request.path) / path)


@pytest.fixture
def serve_agent(request: pytest.FixtureRequest) -> Iterator[Callable[..., ServedForTest]]:
    """`serve_agent(agent, *turns)` serves an agent with `script(*turns)`.

    The agent is an Agent, a factory, a workflow, a module, or the path of a drop-in agent, such as `agents/Greeter`. It
    can use the gateway tools in `./tools`.
    """
    served: list[ServedForTest] = []
    project = _project(request.path)

    def serve(exported: object, *turns: Turn) -> ServedForTest:
        if isinstance(exported, str | Path):
            exported = import_agent_at(project / exported)
        served.append(ServedForTest(exported, script(*turns), project / "tools"))
        return served[-1]

    yield serve
    for each in served:
        each.close()


def _project(test: Path) -> Path:
    """Return the folder to which paths are relative; without a project, the working directory."""
    found = (each for each in test.parents if (each / "gateway.toml").is_file() or (each / "agents").is_dir())
    return next(found, Path.cwd())


def _tools(calls: Sequence[Any]) -> tuple[str, ...]:
    items = [item for call in calls[-1:] for item in call.input if isinstance(item, dict)]
    done = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
    return tuple(item["name"] for item in items if item.get("type") == "function_call" and item["call_id"] in done)
