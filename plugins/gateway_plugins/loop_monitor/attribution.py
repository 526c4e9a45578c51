"""Decides whose code blocks the event loop, from the stack of the loop's thread.

An agent is responsible for the code of its module and for the libraries that this code calls, but not for the SDK and
the gateway, although an agent's code that waits for them is further out on the same stack.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from gateway_core import Catalog, RunContext

_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_GATEWAY = ("gateway_core", "gateway_plugins")
# The part of the gateway that calls an agent's functions.
_CALLER = "gateway_core.runs"


def responsible(stack: Sequence[FrameType], catalog: Catalog, run: RunContext | None) -> tuple[str | None, FrameType]:
    """Return the id of the agent that executes, if it is one, and the responsible frame.

    Args:
        stack: The frames, innermost first.
        catalog: The served agents.
        run: The run that the stack executes, if any.
    """
    owners = _Owners(catalog, run)
    own_code: FrameType | None = None
    for frame in stack:
        if (agent_id := owners.of(frame)) is not None:
            return agent_id, frame
        name = _module(frame)
        package = name.partition(".")[0]
        if package == "agents" or package in _GATEWAY:
            # Code outside of libraries, such as a function that was defined in the program that embeds the gateway.
            is_agents = run is not None and (package == "agents" or f"{name}.".startswith(f"{_CALLER}."))
            if own_code is not None and is_agents:
                assert run is not None
                return run.agent_id, own_code
            return None, own_code or frame
        if own_code is None and not _is_library(frame):
            own_code = frame
    return None, own_code or stack[0]


class _Owners:
    """Finds the agent whose module a frame executes.

    Args:
        catalog: The served agents.
        run: The run that the stack executes, if any.
    """

    def __init__(self, catalog: Catalog, run: RunContext | None) -> None:
        self._run = run
        self._files: dict[str, str] = {}
        self._folders: dict[Path, str] = {}
        self._modules: dict[str, list[tuple[str, str]]] = {}
        for agent in catalog.agents.values():
            entry = agent.entry
            self._files[entry.source] = agent.id
            if entry.folder is not None:
                self._folders[entry.folder] = agent.id
            if entry.module is not None:
                self._modules.setdefault(entry.module.partition(".")[0], []).append((entry.module, agent.id))

    def of(self, frame: FrameType) -> str | None:
        """Return the id of the agent, or `None` if the code belongs to no agent."""
        path = Path(frame.f_code.co_filename)
        found = self._files.get(str(path)) or next((self._folders[f] for f in path.parents if f in self._folders), None)
        if found is not None or not self._modules:
            return found
        name = _module(frame)
        several = self._modules.get(name.partition(".")[0], [])
        same = [agent_id for module, agent_id in several if module == name]
        in_run = [agent_id for _, agent_id in several if self._run is not None and agent_id == self._run.agent_id]
        return next(iter([*in_run, *same, *(agent_id for _, agent_id in several)]), None)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_STANDARD_LIBRARY, "<")) or any(part in file for part in _LIBRARIES)
