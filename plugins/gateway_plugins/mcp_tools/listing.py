"""What a server says of its tools, and what an operator has approved of it.

A tool's name, description and schema are data that a model will read; a digest tells whether they are still what was
seen first. Nothing here talks to a server.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import asdict, evolve, frozen


@frozen
class Listed:
    """A tool as a server lists it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of an object."""
    safe: bool = False
    """Whether the server says that it may be called twice."""

    @property
    def digest(self) -> str:
        """Changes when anything does that a model reads."""
        text = json.dumps([self.name, self.description, self.parameters], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()

    @classmethod
    def from_tool(cls, tool: Any) -> "Listed":
        """From the protocol's own type."""
        hints = tool.annotations
        safe = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        schema = {**tool.input_schema, "type": "object"}
        schema.setdefault("properties", {})
        return cls(tool.name, tool.description or tool.title or "", schema, safe)

    @classmethod
    def unknown(cls, name: str) -> "Listed":
        """A tool of which only the name is known yet."""
        return cls(name, f"The tool {name}.", {"type": "object", "properties": {}, "additionalProperties": True})


@frozen
class Entry:
    """What is known of one tool."""

    listed: Listed | None
    """As the server lists it now; `None` when it does not."""
    approved: Listed | None
    """As it was when an operator approved it, or when it was first seen; `None` for one that came later."""

    @property
    def flagged(self) -> bool:
        """Whether an operator should look at it."""
        return self.listed is not None and (self.approved is None or self.approved.digest != self.listed.digest)


@frozen
class Book:
    """What is known of all tools of a server."""

    entries: Mapping[str, Entry]

    def updated(self, tools: Iterable[Listed], *, pin: bool) -> "Book":
        """With a new list. What was approved stays on record for tools that are gone: they might come back changed.

        The first list of all is approved as it is. Without `pin` so are tools that come later.
        """
        first = not self.entries
        now = {tool.name: tool for tool in tools}
        entries = {name: evolve(entry, listed=None) for name, entry in self.entries.items() if entry.approved}
        for name, tool in now.items():
            before = self.entries.get(name)
            approved = before.approved if before else tool if first or not pin else None
            entries[name] = Entry(tool, approved)
        return Book(entries)

    def approve(self, names: Iterable[str]) -> "Book":
        """With tools approved as they are now."""
        chosen = {name: self.entries[name] for name in names}
        return Book({**self.entries, **{name: Entry(entry.listed, entry.listed) for name, entry in chosen.items()}})

    @property
    def flagged(self) -> list[str]:
        """The tools that an operator should look at."""
        return [name for name, entry in self.entries.items() if entry.flagged]

    def as_json(self) -> dict[str, Any]:
        """To be kept."""
        return {name: asdict(entry) for name, entry in self.entries.items()}

    @classmethod
    def from_json(cls, kept: Any) -> "Book":
        """From what was kept.

        Raises:
            TypeError, KeyError, AttributeError: It is not what `as_json` made.
        """
        return cls({name: Entry(_listed(entry["listed"]), _listed(entry["approved"])) for name, entry in kept.items()})


def _listed(kept: Any) -> Listed | None:
    return None if kept is None else Listed(**kept)
