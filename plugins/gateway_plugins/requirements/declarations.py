"""What an agent says that it needs, as values: requirements, constraints, and lines that are refused.

Nothing here reads a file or asks what is installed.
"""

import re
from pathlib import Path

from attrs import field, frozen
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gateway_core import LoadError

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def hide_credentials(text: str) -> str:
    """A text without the user names and passwords of URLs in it."""
    return _CREDENTIALS.sub("***", text)


@frozen
class Place:
    """Where something is written."""

    file: Path
    line: int
    """Counted from 1."""
    text: str = field(converter=hide_credentials)
    """The line, as the author wrote it, without passwords."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@frozen
class Declared:
    """One requirement, or one constraint."""

    requirement: Requirement
    place: Place
    hashes: tuple[str, ...] = ()
    """As `sha256:…`."""

    @property
    def project(self) -> str:
        """The normalised name of what is required."""
        return canonicalize_name(self.requirement.name)

    @property
    def applies(self) -> bool:
        """Whether its marker holds on this machine; with no marker it always does."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate({"extra": ""})


@frozen
class Refusal:
    """A line from which nothing is installed."""

    place: Place
    reason: str = field(converter=hide_credentials)
    hint: str
    malformed: bool = False
    """Whether nobody can tell what it means. Other refused lines are clear, but name a place to install from or how."""

    def as_error(self) -> LoadError:
        """The refusal, to be raised."""
        return LoadError(
            self.reason,
            source=str(self.place.file),
            line=self.place.line,
            source_line=self.place.text,
            hint=self.hint,
            code="dependency",
        )


@frozen
class NeededPython:
    """The versions of Python that a file asks for."""

    specifier: SpecifierSet
    place: Place


@frozen
class Declaration:
    """All that one agent declares."""

    agent_id: str
    file: Path
    """What is imported for the agent."""
    requirements: tuple[Declared, ...] = ()
    constraints: tuple[Declared, ...] = ()
    python: NeededPython | None = None
    refused: tuple[Refusal, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it declares nothing at all."""
        return not (self.requirements or self.constraints or self.python or self.refused)

    @property
    def hashed(self) -> bool:
        """Whether its requirements are pinned by hashes."""
        return any(declared.hashes for declared in self.requirements)
