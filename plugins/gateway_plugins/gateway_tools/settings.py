"""Defines and validates `[plugins.gateway_tools]`: the tools folder, and the configured tools.

`functions.py` and `http.py` implement the tools.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, evolve, field, frozen

from gateway_core import Amount, Bytes, ConfigError, Network, Secret, Timeout, did_you_mean, named_tables

NAME = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
_URL = re.compile(r"(https?)://([^/?#\\@\s{}]+)([/?][^#\\\s]*)?")


@frozen
class PythonTool:
    """`[plugins.gateway_tools.NAME]` with `kind = "python"`: a function of an installed module."""

    kind: str
    function: str
    """`module:function`."""
    description: str | None = None
    """Description for models; the default is the function's docstring."""
    open: bool = True
    """Whether agents may call it when every policy abstains."""


@frozen
class HttpTool:
    """`[plugins.gateway_tools.NAME]` with `kind = "http"`: a request to a server."""

    kind: str
    url: str
    """The URL, with `{name}` placeholders for arguments in the path or the query."""
    description: str
    """Description for models."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    parameters: dict[str, Any] = Factory(dict)
    """A JSON schema of an object, or only its properties, which are then all required."""
    headers: dict[str, Secret] = Factory(dict)
    result: str | None = None
    """A JMESPath expression that selects the result from a JSON response. By default the result is the whole text."""
    timeout: Timeout = Timeout(10.0)
    """For the whole call, including retries."""
    retries: Amount = Amount(2)
    """Number of retries of a GET or HEAD request that fails, or returns 429, 502, 503 or 504."""
    max_size: Bytes = Bytes(1024 * 1024)
    """Maximum size of a response."""
    private: list[Network] = Factory(list)
    """Non-public addresses and networks that the tool may connect to."""
    open: bool = True
    """Whether agents may call it when every policy abstains."""

    @property
    def schema(self) -> dict[str, Any]:
        """`parameters` as the schema of an object."""
        given = self.parameters
        if given.get("type") == "object" and isinstance(given.get("properties", {}), dict):
            return {"properties": {}, "additionalProperties": False, **given}
        return {"type": "object", "properties": given, "required": list(given), "additionalProperties": False}

    def __attrs_post_init__(self) -> None:
        """Reject invalid settings.

        Raises:
            ConfigError: A setting is invalid. Its source is the setting's name.
        """
        if not _URL.fullmatch(self.url):
            raise ConfigError(
                f"invalid URL: {self.url!r}",
                source="url",
                hint="use http:// or https://, a host without {…} or @, and arguments only in the path or the query",
            )
        properties = self.schema["properties"]
        for name in PLACEHOLDER.findall(self.url):
            if name not in properties:
                raise ConfigError(f"unknown parameter {{{name}}}", source="url", hint=did_you_mean(name, properties))
        if self.result is not None:
            import jmespath

            try:
                jmespath.compile(self.result)
            except jmespath.exceptions.JMESPathError as error:
                raise ConfigError(f"invalid JMESPath expression: {error}", source="result") from None


@frozen
class _Kind:
    kind: Literal["python", "http"]


@frozen
class Settings:
    """`[plugins.gateway_tools]`."""

    path: Path = Path("./tools")
    """The folder of Python files with tools, relative to the folder of `gateway.toml`."""
    builtin: bool = True
    """Whether to offer `current_time` and `calculate`."""
    tools: Mapping[str, PythonTool | HttpTool] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Build the settings from the plugin's table. Nested tables are tools."""
        settings: Settings
        settings, tools = named_tables(
            table, lambda own: structure(own, cls), lambda name, value: _tool(name, value, structure)
        )
        return evolve(settings, tools=tools)


def _tool(name: str, table: Mapping[str, Any], structure: Callable[..., Any]) -> PythonTool | HttpTool:
    if not NAME.fullmatch(name):
        raise ConfigError(
            "invalid tool name",
            source=f"[plugins.gateway_tools.{name if '/' not in name else repr(name)}]",
            hint="use letters, digits, '_' and '-', in segments separated by '/'",
        )
    kind = structure({key: value for key, value in table.items() if key == "kind"}, _Kind, name).kind
    tool: PythonTool | HttpTool = structure(table, PythonTool if kind == "python" else HttpTool, name)
    return tool
