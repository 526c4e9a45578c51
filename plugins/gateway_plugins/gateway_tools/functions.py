"""Python functions become tools: of installed modules, and of files in the folder of tools.

The SDK makes the schema, from signature and docstring. What a file imports touches no other file's modules.
"""

import copy
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from agents import FunctionTool, UserError, function_tool

from gateway_core import (
    ConfigError,
    GatewayError,
    IsolatedModule,
    PluginError,
    ToolOrigin,
    load_isolated,
    mark_tool,
    sdk_tool_name,
)
from gateway_plugins.gateway_tools.settings import NAME, PythonTool

_SKIPPED = re.compile(r"(_.*|\..*|test_.*|.*_test|conftest|setup)")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages"})

Report = Callable[[GatewayError], None]


def as_tool(function: Any, name: str, *, description: str | None = None, open: bool = True) -> FunctionTool:
    """A function, or a tool that the SDK has made of it already, under a name of the gateway's.

    Raises:
        UserError: The SDK cannot make a schema of its signature.
    """
    if isinstance(function, FunctionTool):
        tool = copy.copy(function)  # its module may use it under its own name
        tool.name, tool.description = sdk_tool_name(name), description or tool.description
    elif not callable(function):
        raise UserError(f"a {type(function).__name__} cannot be called")
    else:
        tool = _made(function, sdk_tool_name(name), description)
    mark_tool(tool, ToolOrigin("gateway", open=open))
    return tool


def _made(function: Callable[..., Any], name: str, description: str | None) -> FunctionTool:
    try:
        return function_tool(function, name_override=name, description_override=description)
    except UserError:
        # A free dictionary has no strict schema; models then get one that does not bind them.
        return function_tool(function, name_override=name, description_override=description, strict_mode=False)


def imported(name: str, settings: PythonTool) -> FunctionTool:
    """The tool of a `module:function`.

    Raises:
        ConfigError: There is no such function, or it cannot be one.
    """
    module_name, _, path = settings.function.partition(":")
    place = f"[plugins.gateway_tools.{name}] function"
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
        return as_tool(found, name, description=settings.description, open=settings.open)
    except Exception as error:
        raise ConfigError(
            f"{settings.function!r} is no function to be a tool: {type(error).__name__}: {error}",
            source=place,
            hint="write module:function, of a module that is installed",
        ) from error


class ToolFiles:
    """The tools in a folder, read again when any of its files has changed.

    A function counts when it is public, has a docstring, and is defined in the file; so does a tool that the SDK's
    decorator has made. `tools/clock.py` with `now` is the tool `now`; `tools/mail/smtp.py` with `send` is `mail/send`.
    A file that cannot be imported keeps its last good tools, and is reported once.

    Args:
        root: The folder; it need not be there.
        report: Told of what cannot be offered.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self._root = root
        self._report = report
        self._digest = ""
        self._tools: dict[Path, list[FunctionTool]] = {}
        self._modules: dict[Path, IsolatedModule] = {}
        self._replaced: list[IsolatedModule] = []

    def read(self) -> list[FunctionTool]:
        """All tools of all files, in the order of their paths. Blocking; runs the files' code when any has changed."""
        files = list(_files(self._root)) if self._root.is_dir() else []
        digest = _digest(files)
        if digest != self._digest:
            self._digest = digest
            # Calls that run still may import from the modules before; by now none does from those before them.
            for module in self._replaced:
                module.unload()
            self._replaced = []
            before = self._tools
            self._tools = {f: self._import(f, before.get(f)) for f in files if _is_tool_file(f, self._root)}
        return [tool for tools in self._tools.values() for tool in tools]

    def _import(self, file: Path, before: list[FunctionTool] | None) -> list[FunctionTool]:
        try:
            module = load_isolated(file, folder=file.parent, name=f"tools_{file.stem}", shared=self._root)
            tools = list(self._tools_of(module.module, file))
        except (Exception, SystemExit) as error:
            self._report(
                PluginError(
                    f"cannot be imported: {type(error).__name__}: {error}",
                    source=f"{file}:{_line(error, file)}",
                    hint="mend it; its tools are missing" if before is None else "mend it; its tools stay as they were",
                )
            )
            return before or []
        if file in self._modules:
            self._replaced.append(self._modules[file])
        self._modules[file] = module
        return tools

    def _tools_of(self, module: ModuleType, file: Path) -> Iterator[FunctionTool]:
        group = file.parent.relative_to(self._root).as_posix()
        for attribute, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__ and value.__doc__
            if attribute.startswith("_") or not (own or isinstance(value, FunctionTool)):
                continue
            name = value.name if isinstance(value, FunctionTool) else attribute
            name = name if group == "." else f"{group}/{name}"
            if NAME.fullmatch(name):
                yield as_tool(value, name)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in parts)
        if not hidden and path.is_file() and path.resolve().is_relative_to(root.resolve()):
            yield path


def _is_tool_file(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).with_suffix("").parts
    return not any(_SKIPPED.fullmatch(part) for part in parts)


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            content = b"unreadable"
        digest.update(str(file).encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _line(error: BaseException, file: Path) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno or 1
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
