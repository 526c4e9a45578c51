"""Converts Python functions to tools: from installed modules, and from files in the tools folder.

The SDK derives the schema from the signature and the docstring. Each file is imported in isolation from other files.
"""

import copy
import hashlib
import importlib
import inspect
import logging
import re
import traceback
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

logger = logging.getLogger(__name__)

_SKIPPED = re.compile(r"(_.*|\..*|test_.*|.*_test|conftest|setup)")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages"})

Report = Callable[[GatewayError], None]


def as_tool(function: Any, name: str, *, description: str | None = None, open: bool = True) -> FunctionTool:
    """Convert a function or an SDK tool to a gateway tool with the given name.

    Raises:
        UserError: The value is not callable, or the SDK cannot derive a schema from its signature.
    """
    if isinstance(function, FunctionTool):
        tool = copy.copy(function)  # its module may use it under its own name
        tool.name, tool.description = sdk_tool_name(name), description or tool.description
    elif not callable(function):
        raise UserError(f"a {type(function).__name__} is not callable")
    else:
        tool = _function_tool(function, sdk_tool_name(name), description)
    mark_tool(tool, ToolOrigin("gateway", open=open))
    return tool


def _function_tool(function: Callable[..., Any], name: str, description: str | None) -> FunctionTool:
    try:
        return function_tool(function, name_override=name, description_override=description)
    except UserError:
        # A parameter such as a free-form dictionary has no strict schema, so a non-strict one is used.
        return function_tool(function, name_override=name, description_override=description, strict_mode=False)


def imported(name: str, settings: PythonTool) -> FunctionTool:
    """Import the tool that `module:function` refers to.

    Raises:
        ConfigError: The function cannot be imported, or cannot be a tool.
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
            f"could not create a tool from {settings.function!r}: {type(error).__name__}: {error}",
            source=place,
            hint="use module:function with an installed module",
        ) from error


class ToolFiles:
    """The tools in a folder, which is read again when any of its files has changed.

    A function is a tool if it is public, has a docstring, and is defined in the file, or if it has the SDK's decorator.
    `now` in `tools/clock.py` is the tool `now`; `send` in `tools/mail/smtp.py` is `mail/send`. A file that cannot be
    imported keeps its last good tools, and is reported once.

    Args:
        root: The folder; it may be missing.
        report: Called with the error of each file that cannot be imported.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self._root = root
        self._report = report
        self._digest = ""
        self._tools: dict[Path, list[FunctionTool]] = {}
        self._modules: dict[Path, IsolatedModule] = {}
        self._replaced: list[IsolatedModule] = []
        self._failed: dict[Path, str] = {}
        self.skipped: dict[str, str] = {}
        """The public functions that are not tools, by the names that their tools would have, and the reasons."""

    def explain(self, name: str) -> str | None:
        """Return why a file of the folder offers no tool with this name, if a file defines a function for it."""
        if name in self.skipped:
            return self.skipped[name]
        group, _, function = name.rpartition("/")
        defines = re.compile(rf"^(async )?def {re.escape(function)}\b", re.MULTILINE)
        for file, problem in list(self._failed.items()):
            if self._group(file) == group and defines.search(_text(file)):
                return f"{file} cannot be imported: {problem}"
        return None

    def read(self) -> list[FunctionTool]:
        """Return all tools, sorted by path. Blocking; it imports the files again if any of them has changed."""
        files = list(_files(self._root)) if self._root.is_dir() else []
        digest = _digest(files)
        if digest != self._digest:
            self._digest = digest
            # Active calls may still import from the previous version, but no longer from the one before it.
            for module in self._replaced:
                module.unload()
            self._replaced = []
            self._failed, self.skipped = {}, {}
            before = self._tools
            self._tools = {f: self._import(f, before.get(f)) for f in files if _is_tool_file(f, self._root)}
        return [tool for tools in self._tools.values() for tool in tools]

    def _import(self, file: Path, before: list[FunctionTool] | None) -> list[FunctionTool]:
        try:
            module = load_isolated(file, folder=file.parent, name=f"tools_{file.stem}", shared=self._root)
            tools = list(self._tools_of(module.module, file))
        except (Exception, SystemExit) as error:
            self._failed[file] = f"{type(error).__name__}: {error}"
            self._report(
                PluginError(
                    f"import failed: {self._failed[file]}",
                    source=f"{file}:{_line(error, file)}",
                    hint="fix the file; its tools are missing"
                    if before is None
                    else "fix the file; its previous tools stay active",
                )
            )
            return before or []
        if file in self._modules:
            self._replaced.append(self._modules[file])
        self._modules[file] = module
        return tools

    def _tools_of(self, module: ModuleType, file: Path) -> Iterator[FunctionTool]:
        group = self._group(file)
        for attribute, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            if attribute.startswith("_") or not (own or isinstance(value, FunctionTool)):
                continue
            name = value.name if isinstance(value, FunctionTool) else attribute
            name = f"{group}/{name}" if group else name
            if own and not value.__doc__:
                self._skip(name, file, f"the function {attribute} has no docstring, which describes the tool to models")
            elif not NAME.fullmatch(name):
                self._skip(name, file, f"the name {name} has other characters than letters, digits, '_' and '-'")
            else:
                try:
                    yield as_tool(value, name)
                except Exception as error:  # the schemas of the parameters are built by the SDK and by Pydantic
                    why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                    self._skip(name, file, f"the signature of {attribute} has no JSON schema ({why})")

    def _skip(self, name: str, file: Path, why: str) -> None:
        self.skipped[name] = f"{file}: {why}"
        logger.info("not offered as a tool: %s", self.skipped[name])

    def _group(self, file: Path) -> str:
        group = file.parent.relative_to(self._root).as_posix()
        return "" if group == "." else group


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") or part in _SKIPPED_FOLDERS for part in parts)
        if not hidden and path.is_file() and path.resolve().is_relative_to(root.resolve()):
            yield path


def _is_tool_file(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).with_suffix("").parts
    return not any(_SKIPPED.fullmatch(part) for part in parts)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


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
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)]
    return lines[-1] if lines else 1
