"""Provides shared tools that any agent can use by name: functions, files in a folder, and HTTP requests.

It decides neither who may call a tool nor which agent has it.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_core import SUSPICIOUS, AgentEntry, ConfigError, Gateway, gateway_tool_name, hookimpl
from gateway_plugins.gateway_tools.settings import HttpTool, PythonTool, Settings

if TYPE_CHECKING:
    from agents import FunctionTool, Tool

    from gateway_plugins.gateway_tools.functions import ToolFiles
    from gateway_plugins.gateway_tools.http import HttpCaller


class GatewayTools:
    """The plugin `gateway_tools`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._config = config
        self._files: ToolFiles | None = None
        self._callers: list[HttpCaller] = []
        # Created at the first discovery, because that imports the SDK.
        self._fixed: list[FunctionTool] | None = None
        self._builtin: list[FunctionTool] = []
        self._tools: dict[str, FunctionTool] = {}

    def reconfigure(self, config: Settings) -> None:
        """Rebuild the tools at the next discovery. Connections of the old tools stay open until the gateway stops."""
        self._config = config
        self._fixed = self._files = None

    @hookimpl
    def discover_agents(self) -> Iterable[AgentEntry]:
        """Rebuild the tools, and return no agents. The hook is called at each reload, in a thread that may block."""
        from gateway_plugins.gateway_tools.functions import ToolFiles

        if self._fixed is None:
            self._fixed = list(self._configured())
            self._builtin = list(self._built_in()) if self._config.builtin else []
        if self._files is None:
            self._files = ToolFiles(self._config.path, self._gateway.report)
            self._report_missing_folder()
        tools: dict[str, FunctionTool] = {}
        # A configured tool replaces a built-in tool of the same name.
        for tool in [*self._fixed, *self._files.read(), *self._builtin]:
            tools.setdefault(tool.name, tool)
        self._tools = tools
        return ()

    def _report_missing_folder(self) -> None:
        path = self._config.path
        # The default folder is optional.
        if path.name != Settings().path.name and not path.is_dir():
            self._gateway.report(
                ConfigError(
                    f"the folder {path} does not exist",
                    source="[plugins.gateway_tools] path",
                    hint="create it, or name another folder; relative paths are relative to the folder of gateway.toml",
                    code=SUSPICIOUS,
                )
            )

    @hookimpl
    def offer_tools(self) -> "Iterable[Tool]":
        """Return the tools from the last discovery."""
        return list(self._tools.values())

    @hookimpl
    def explain_missing_tool(self, name: str) -> str | None:
        """Return why a function of the folder is not a tool."""
        return self._files.explain(name) if self._files else None

    @hookimpl
    def watch_paths(self) -> Iterable[Path]:
        """Return the folder, even if it does not exist yet."""
        return [self._config.path]

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Close the connections of HTTP tools on shutdown."""
        yield
        for caller in self._callers:
            await caller.close()

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the folder, the names of the tools, and the functions of the folder that are not tools."""
        path = self._config.path
        return {
            "path": str(path),
            "exists": path.is_dir(),
            "tools": [gateway_tool_name(name) for name in self._tools],
            "skipped": self._files.skipped if self._files else {},
        }

    def _configured(self) -> "Iterator[FunctionTool]":
        from gateway_plugins.gateway_tools.functions import imported

        for name, settings in self._config.tools.items():
            match settings:
                case HttpTool():
                    from gateway_plugins.gateway_tools.http import HttpCaller

                    caller = HttpCaller(name, settings)
                    self._callers.append(caller)
                    yield caller.tool
                case PythonTool():
                    try:
                        yield imported(name, settings)
                    except ConfigError as error:
                        self._gateway.report(error)

    def _built_in(self) -> "Iterator[FunctionTool]":
        from gateway_plugins.gateway_tools import builtin
        from gateway_plugins.gateway_tools.functions import as_tool

        for function in (builtin.current_time, builtin.calculate):
            yield as_tool(function, function.__name__)
