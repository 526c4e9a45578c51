"""The dependencies that an agent declares, as values. Nothing here reads a file or checks what is installed."""

import re
import shlex
from pathlib import Path

from attrs import frozen
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gateway_core import LoadError

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def hide_credentials(text: str) -> str:
    """Replaces the user names and passwords of the URLs in a text."""
    return _CREDENTIALS.sub("***", text)


@frozen
class Location:
    """A line of a file, counted from 1, and its text."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def error(self, message: str, hint: str) -> LoadError:
        """The error of an agent that cannot be loaded because of this line. It shows no credentials."""
        text = hide_credentials(self.text)
        return LoadError(
            hide_credentials(message),
            source=str(self.file),
            line=self.line,
            source_line=text,
            hint=hint,
            code="dependency",
        )


@frozen
class Declared:
    """A requirement; or a constraint, which limits the versions of a project and does not require it."""

    requirement: Requirement
    location: Location
    hashes: tuple[str, ...] = ()
    constraint: bool = False

    @property
    def project(self) -> str:
        """The normalized name of the project."""
        return canonicalize_name(self.requirement.name)

    @property
    def applies(self) -> bool:
        """Whether its environment marker holds on this machine."""
        return self.requirement.marker is None or self.requirement.marker.evaluate({"extra": ""})

    @property
    def line(self) -> str:
        """The line for uv. It is serialized from what was parsed, so that uv and the check read the same."""
        return " ".join([str(self.requirement), *(f"--hash={value}" for value in self.hashes)])


@frozen
class Rejected:
    """A line that is not checked, and that keeps `deps install` from installing unless it is ignored."""

    error: LoadError
    malformed: bool = False
    ignored: bool = False
    """Whether it requires no installation."""


@frozen
class PythonRequirement:
    """The versions of Python that a file supports."""

    specifier: SpecifierSet
    location: Location


@frozen
class Declaration:
    """Everything that one agent declares."""

    agent_id: str
    file: Path
    """The file that is imported for it."""
    folder: Path | None = None
    """The agent's own folder, if it has one."""
    requirements: tuple[Declared, ...] = ()
    constraints: tuple[Declared, ...] = ()
    python: PythonRequirement | None = None
    rejected: tuple[Rejected, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it contains no requirement."""
        return not (self.requirements or self.constraints or self.python or self.rejected)

    @property
    def obstacles(self) -> tuple[Rejected, ...]:
        """The lines that keep `deps install` from installing."""
        return tuple(rejected for rejected in self.rejected if not rejected.ignored)

    @property
    def install_command(self) -> str:
        """The command that installs it from any working directory."""
        path = (self.folder or self.file.with_suffix("")).as_posix()
        root = path.removesuffix(f"/{self.agent_id}")
        options = ["--agents", root] if root != path else []
        return shlex.join(["agent-gateway", "deps", "install", "--agent", self.agent_id, *options])
