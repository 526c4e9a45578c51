"""Records the tools that a server lists, and the versions of them that an operator approved.

A model reads a tool's name, description and schema; a digest detects changes to them. This module does no I/O.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import cattrs
from attrs import asdict, evolve, frozen


@frozen
class ListedTool:
    """A tool as a server lists it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of an object."""
    safe: bool = False
    """Whether the server marks the tool as read-only or idempotent, so that a call may be retried."""

    @property
    def digest(self) -> str:
        """A hash of everything that a model reads."""
        text = json.dumps([self.name, self.description, self.parameters], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()

    @classmethod
    def from_tool(cls, tool: Any) -> "ListedTool":
        """Convert an `mcp_types.Tool`."""
        hints = tool.annotations
        safe = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        schema = {**tool.input_schema, "type": "object"}
        schema.setdefault("properties", {})
        return cls(tool.name, tool.description or tool.title or "", schema, safe)

    @classmethod
    def unknown(cls, name: str) -> "ListedTool":
        """A placeholder for a tool of which only the name is known."""
        return cls(name, f"The tool {name}.", {"type": "object", "properties": {}, "additionalProperties": True})


@frozen
class ToolEntry:
    """The listed and the approved version of one tool."""

    listed: ListedTool | None
    """The version that the server lists now; `None` if it does not list the tool."""
    approved: ListedTool | None
    """The version that an operator approved, or that the first list contained; `None` for a tool added later."""

    @property
    def flagged(self) -> bool:
        """Whether the listed version differs from the approved one, or none is approved."""
        return self.listed is not None and (self.approved is None or self.approved.digest != self.listed.digest)


@frozen
class ToolCatalog:
    """All known tools of a server."""

    entries: Mapping[str, ToolEntry]

    def updated(self, tools: Iterable[ListedTool], *, pin: bool) -> "ToolCatalog":
        """Return a catalog with a new list.

        Approved versions of removed tools are kept, since a tool may reappear changed. The first list is approved
        automatically. Without `pin`, so are tools that are added later.
        """
        first = not self.entries
        now = {tool.name: tool for tool in tools}
        entries = {name: evolve(entry, listed=None) for name, entry in self.entries.items() if entry.approved}
        for name, tool in now.items():
            before = self.entries.get(name)
            approved = before.approved if before else tool if first or not pin else None
            entries[name] = ToolEntry(tool, approved)
        return ToolCatalog(entries)

    def approve(self, names: Iterable[str]) -> "ToolCatalog":
        """Return a catalog in which the listed versions of the tools are approved.

        Raises:
            KeyError: A tool does not exist.
        """
        chosen = {name: self.entries[name] for name in names}
        return ToolCatalog(
            {**self.entries, **{name: ToolEntry(entry.listed, entry.listed) for name, entry in chosen.items()}}
        )

    @property
    def flagged(self) -> list[str]:
        """Names of the tools that an operator should review."""
        return [name for name, entry in self.entries.items() if entry.flagged]

    def as_json(self) -> dict[str, Any]:
        """Serialize for storage."""
        return {name: asdict(entry) for name, entry in self.entries.items()}

    @classmethod
    def from_json(cls, kept: Any) -> "ToolCatalog":
        """Restore a stored catalog.

        Raises:
            Exception: The value does not come from `as_json`.
        """
        return cls(cattrs.structure(kept, dict[str, ToolEntry]))
