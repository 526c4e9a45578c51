"""`[plugins.gateway_tools]`: where tools are found, and the tools that are configured by name.

It holds and checks values only; what they do is in `functions.py` and `http.py`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, field, frozen

from gateway_core import Bytes, ConfigError, Network, Seconds, Secret, did_you_mean

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
    """For models; the function's docstring unless given."""
    open: bool = True
    """Whether agents may call it when no policy has an opinion on it."""


@frozen
class HttpTool:
    """`[plugins.gateway_tools.NAME]` with `kind = "http"`: a request to a server."""

    kind: str
    url: str
    """With `{name}` where arguments go, in the path or the query."""
    description: str
    """What models are told."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    parameters: dict[str, Any] = Factory(dict)
    """A JSON schema of an object, or only its properties, each of which is then required."""
    headers: dict[str, Secret] = Factory(dict)
    result: str | None = None
    """A JMESPath expression for what the model gets of a JSON answer; without it, the answer's text."""
    timeout: Seconds = Seconds(10.0)
    """For the whole call, repetitions included."""
    retries: int = 2
    """How often a GET or a HEAD is repeated that failed, or was answered 429, 502, 503 or 504."""
    max_size: Bytes = Bytes(1024 * 1024)
    """Of an answer."""
    private: list[Network] = Factory(list)
    """Addresses and networks that are not public and yet may be connected to."""
    open: bool = True
    """Whether agents may call it when no policy has an opinion on it."""

    @property
    def schema(self) -> dict[str, Any]:
        """`parameters` as the schema of an object."""
        given = self.parameters
        if given.get("type") == "object" and isinstance(given.get("properties", {}), dict):
            return {"properties": {}, "additionalProperties": False, **given}
        return {"type": "object", "properties": given, "required": list(given), "additionalProperties": False}

    def check(self) -> None:
        """Refuse what can never work, or must not.

        Raises:
            ConfigError: It says which setting is wrong; the place is the caller's to add.
        """
        if not _URL.fullmatch(self.url):
            raise ConfigError(
                f"is no address of a tool: {self.url!r}",
                source="url",
                hint="http:// or https://, a host without {…} or @, and arguments in the path or the query only",
            )
        properties = self.schema["properties"]
        for name in PLACEHOLDER.findall(self.url):
            if name not in properties:
                raise ConfigError(f"{{{name}}} is no parameter", source="url", hint=did_you_mean(name, properties))
        if self.result is not None:
            import jmespath

            try:
                jmespath.compile(self.result)
            except jmespath.exceptions.JMESPathError as error:
                raise ConfigError(f"is no JMESPath expression: {error}", source="result") from None


@frozen
class _Switches:
    path: Path = Path("./tools")
    builtin: bool = True


@frozen
class _Kind:
    kind: Literal["python", "http"]


@frozen
class Settings:
    """`[plugins.gateway_tools]`."""

    path: Path = Path("./tools")
    """The folder of Python files whose functions are tools; relative to the folder of `gateway.toml`."""
    builtin: bool = True
    """Whether `current_time` and `calculate` are on offer."""
    tools: Mapping[str, PythonTool | HttpTool] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Tables below the plugin's own are tools, the rest are its settings."""
        own = {key: value for key, value in table.items() if not isinstance(value, dict)}
        switches = structure(own, _Switches)
        tools = {name: _tool(name, value, structure) for name, value in table.items() if isinstance(value, dict)}
        return cls(switches.path, switches.builtin, tools)


def _tool(name: str, table: Mapping[str, Any], structure: Callable[..., Any]) -> PythonTool | HttpTool:
    place = f"[plugins.gateway_tools.{name if '/' not in name else repr(name)}]"
    if not NAME.fullmatch(name):
        raise ConfigError("is no name of a tool", source=place, hint="letters, digits, '_' and '-', in parts by '/'")
    kind = structure({key: value for key, value in table.items() if key == "kind"}, _Kind, name).kind
    tool: PythonTool | HttpTool = structure(table, PythonTool if kind == "python" else HttpTool, name)
    if isinstance(tool, HttpTool):
        try:
            tool.check()
        except ConfigError as error:
            raise ConfigError(error.message, source=f"{place} {error.source}", hint=error.hint) from None
    return tool
