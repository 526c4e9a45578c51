"""Provides an in-memory gateway and a scripted model for tests of agents, of plugins and of the gateway itself.

The gateway opens no port: requests go through ASGI, with streaming and disconnect detection. The SDK's runner and the
whole gateway are real; only the model is a fake.

    model = script(call("get_weather", city="Paris"), "18 degrees")
    async with gateway_in_memory({"Weather": agent}, model=model) as g:
        answer = await g.openai.chat.completions.create(model="Weather", messages=[...])
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
from agents import Model, ModelProvider
from agents.testing import ScriptedModel, assistant_message, function_call
from attrs import frozen
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Message, Scope

from gateway_core.app import build
from gateway_core.catalog.drop_in_folder import AGENT_FILES
from gateway_core.catalog.module_isolation import load_isolated
from gateway_core.config.settings import load_config
from gateway_core.config.sources import Table
from gateway_core.gateway import RunningGateway
from gateway_core.hooks.specs import hookimpl
from gateway_core.types import AgentEntry, Outcome, RunContext

BASE_URL = "http://localhost/v1"
_digests = itertools.count()
# Shared by all scripts: a run may use the models of several agents, and the ids of its calls must be unique.
_calls = itertools.count(1)


@frozen
class Call:
    """A tool call that a scripted model makes."""

    tool: str
    arguments: Mapping[str, Any]


def call(tool: str, **arguments: Any) -> Call:
    """Create a tool call for `script`."""
    return Call(tool, arguments)


def script(*turns: str | Call | Sequence[str | Call]) -> ScriptedModel:
    """Create a model that returns the given outputs, one per turn.

    Args:
        turns: Each turn is a message (a string), a tool call (`call(...)`), or a list of both.
    """

    def output(part: str | Call) -> Any:
        if isinstance(part, Call):
            return function_call(part.tool, dict(part.arguments), call_id=f"call_{next(_calls)}")
        return assistant_message(part)

    return ScriptedModel([[output(p) for p in ([t] if isinstance(t, str | Call) else t)] for t in turns])


@frozen
class GatewayInMemory:
    """A running gateway with its clients."""

    gateway: RunningGateway
    openai: AsyncOpenAI
    """The official OpenAI client, connected to the gateway."""
    http: httpx2.AsyncClient
    """An HTTP client for everything that the OpenAI client does not support."""
    ended: list[tuple[RunContext, Outcome]]
    """All finished runs, in the order in which they ended."""


@asynccontextmanager
async def gateway_in_memory(
    agents: Mapping[str, object] | None = None,
    *,
    folder: Path | None = None,
    tools: Path | None = None,
    model: Model | None = None,
    plugins: Mapping[str, type] | None = None,
    config: Table | None = None,
    api_key: str = "none",
) -> AsyncIterator[GatewayInMemory]:
    """Start a gateway, and stop it when the block exits.

    Args:
        agents: The objects to serve, by model id: agents, factories, workflow functions or modules.
        folder: An additional drop-in folder to serve.
        tools: The folder of gateway tools; default: `tools` in the working directory.
        model: The model of every agent that sets no model object. Without it, the configuration selects the model; the
            gateway does not probe for upstreams.
        plugins: Additional plugin classes, by name.
        config: Settings, as in `gateway.toml`. The gateway reads neither that file nor the environment.
        api_key: The API key that the clients send.
    """
    ended: list[tuple[RunContext, Outcome]] = []
    extra: dict[str, type] = {"given_agents": _agents_plugin(agents or {}), "run_listener": _listener_plugin(ended)}
    defaults: Table = {
        "folder_discovery": {"path": str(folder)} if folder else {"enabled": False},
        "entry_point_discovery": {"enabled": False},
        "upstreams": {"probe": False},
        "hot_reload": {"enabled": False},
        "offline_model": {"word_delay": 0},
        # A slow test machine must not be reported as an agent that blocks the event loop.
        "loop_monitor": {"threshold": 10.0},
    }
    if tools is not None:
        defaults["gateway_tools"] = {"path": str(tools)}
    if model is not None:
        extra["given_model"] = _model_plugin(model)
        defaults |= {"upstreams": {"enabled": False}, "offline_model": {"enabled": False}}
    given = config or {}
    tables = {
        "state": {"folder": ""},
        **given,
        # The answers are those that clients on other machines receive.
        "runs": {"tool_errors": "none", **given.get("runs", {})},
        "plugins": {**defaults, **given.get("plugins", {})},
    }
    app = build(load_config(overrides=tables, environ={}), plugins={**extra, **(plugins or {})})
    gateway: RunningGateway = app.state.gateway
    async with gateway:
        http = httpx2.AsyncClient(
            transport=AsgiTransport(app),
            base_url="http://localhost",
            headers={"authorization": f"Bearer {api_key}"},
        )
        client = AsyncOpenAI(
            base_url=BASE_URL,
            api_key=api_key,
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=AsgiTransport(app), base_url=BASE_URL),
        )
        async with http, client:
            yield GatewayInMemory(gateway, client, http, ended)


def import_agent(path: str | Path) -> ModuleType:
    """Import a drop-in agent as the gateway does, and return its module: a new copy at each call.

    `import agents.Greeter.agent` is not possible, because `agents` is the SDK.

    Args:
        path: The agent's folder or file, such as `agents/Greeter` or `agents/quick.py`.

    Raises:
        FileNotFoundError: The path contains no agent.
    """
    place = Path(path).resolve()
    candidates = [place, *(place / name for name in AGENT_FILES)]
    file = next((each for each in candidates if each.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no agent at {place}: name its folder with an agent.py, or its file")
    folder = file.parent if file.name in AGENT_FILES else None
    above = (folder or file).parents
    shared = next((each for each in above if each.name == "agents"), above[0])
    return load_isolated(file, folder=folder, name=(folder or file.with_suffix("")).name, shared=shared).module


class AsgiTransport(httpx2.AsyncBaseTransport):
    """An HTTPX transport that sends requests to an ASGI application and streams its responses.

    Closing a response before its end simulates a client disconnect.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(await request.aread())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        exchange.task = asyncio.create_task(exchange.run(self._app, scope))
        exchange.task.add_done_callback(lambda _: exchange.sent.put_nowait(None))
        try:
            start = await exchange.sent.get()
        except BaseException:
            await exchange.aclose()  # the client disconnected before the response started
            raise
        if start is None:
            await exchange.task
            raise httpx2.RemoteProtocolError("the application returned without a response")
        return httpx2.Response(start["status"], headers=start["headers"], stream=exchange, request=request)


class _Exchange(httpx2.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.task: asyncio.Task[None] | None = None
        self.sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._body: bytes | None = body
        self._disconnected = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.sent.get()) is not None:
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return
        raise httpx2.RemoteProtocolError("the application returned before the response was complete")

    async def aclose(self) -> None:
        self._disconnected.set()
        if self.task is not None:
            await asyncio.wait([self.task])


def _agents_plugin(agents: Mapping[str, object]) -> type:
    def entry(agent_id: str, exported: object) -> AgentEntry:
        return AgentEntry(agent_id, f"given as {agent_id}", f"given-{next(_digests)}", lambda: exported)

    class GivenAgents:
        def __init__(self, *_: object) -> None:
            self._entries = [entry(agent_id, exported) for agent_id, exported in agents.items()]

        @hookimpl
        def discover_agents(self) -> Iterable[AgentEntry]:
            return self._entries

    return GivenAgents


def _listener_plugin(ended: list[tuple[RunContext, Outcome]]) -> type:
    class RunListener:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
            ended.append((run, outcome))

    return RunListener


def _model_plugin(model: Model) -> type:
    class Provider(ModelProvider):
        def get_model(self, model_name: str | None) -> Model:
            return model

    class GivenModel:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def model_provider(self) -> ModelProvider:
            return Provider()

    return GivenModel
