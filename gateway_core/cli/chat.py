"""Implements `agent-gateway chat`, which runs an agent in the terminal without a server.

The answer is printed to standard output, tool calls to standard error.
"""

import asyncio
import sys
import uuid
from pathlib import Path
from typing import Any

import click

from gateway_core.cli import config_options, fast_imports, hooks_of, offline_option, read_config
from gateway_core.config.values import did_you_mean
from gateway_core.errors import GatewayError, NotFoundError
from gateway_core.runs.run_events import (
    AgentChanged,
    Completed,
    Failed,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from gateway_core.sdk import compat
from gateway_core.types import Principal, RunContext


def _model_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the discovered agents for shell completion. None of them is imported."""
    try:
        config = read_config(context.params.get("file"), context.params.get("agents"), skip=["chat"])
        entries = hooks_of(config).discover_agents(lambda _: None)
    except GatewayError:
        return []
    return [entry.id for entry in entries if entry.id.casefold().startswith(incomplete.casefold())]


@click.command()
@click.argument("model", shell_complete=_model_names)
@click.argument("text", required=False)
@config_options
@offline_option
def chat(model: str, text: str | None, file: Path | None, agents: Path | None, offline: bool) -> None:
    """Send TEXT to the agent MODEL and print the answer.

    Without TEXT, read messages from standard input until it ends.
    """
    settings = read_config(file, agents, skip=["chat", "offline"] if offline else ["chat"])
    with fast_imports():
        compat.check(serving=False)
        from gateway_core.gateway import RunningGateway

    async def converse() -> None:
        async with RunningGateway(settings, only=model, serving=False) as gateway:
            catalog = gateway.catalog
            agent_id = catalog.resolve(model)
            if agent_id is None:
                names = [*gateway.discovered, *catalog.agents]
                raise NotFoundError(f"unknown agent '{model}'", hint=did_you_mean(model, names))
            if agent_id not in catalog.agents:
                raise catalog.broken[agent_id].error
            served, items = catalog.agents[agent_id], list[dict[str, Any]]()
            if text is not None:
                await _say(gateway, served, items, text)
                return
            while (line := await asyncio.to_thread(_ask)) is not None:
                try:
                    await _say(gateway, served, items, line)
                except GatewayError as error:
                    click.echo(f"error: {error}", err=True)

    asyncio.run(converse())


async def _say(gateway: Any, served: Any, items: list[dict[str, Any]], text: str) -> None:
    """Print the agent's answer, and add the message and the answer to the items of the chat."""
    from gateway_core.runs.run_request import RunRequest

    items.append({"role": "user", "content": text})
    context = RunContext(f"req_{uuid.uuid4().hex}", Principal("local", admin=True), served.id, "chat")
    answer: list[str] = []
    shown = gateway.config.runs.tool_errors != "none"
    request = RunRequest(served, context, tuple(items), text, live=True, show_tool_errors=shown)
    async with gateway.engine.start(request) as run:
        while True:
            for event in await run.take():
                match event:
                    case TextDelta():
                        answer.append(event.text)
                        click.echo(event.text, nl=False)
                    case ToolStarted():
                        _note(f"{event.name} {event.arguments}")
                    case ToolProgress():
                        _note(event.message)
                    case ToolFinished():
                        _note(f"{event.name}: {event.output}")
                    case AgentChanged():
                        _note(f"{event.name} takes over")
                    case Failed():
                        click.echo()
                        items.pop()
                        if event.error.detail:
                            _note(event.error.detail)
                        raise event.error
                    case Completed():
                        click.echo()
                        items.append({"role": "assistant", "content": "".join(answer)})
                        return


def _note(text: str) -> None:
    click.secho(f"[{text}]", err=True, dim=True)


def _ask() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
