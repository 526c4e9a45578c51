"""Converts the result of an MCP call to the SDK's tool output, within a size limit.

Links are kept as text; nothing is fetched.
"""

import json
from typing import Any

from mcp_types import (
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)


def as_output(result: CallToolResult, max_size: int) -> Any:
    """Convert a result: to a string if it contains only text, else to a list of the SDK's text and image outputs.

    Args:
        result: The result from the server.
        max_size: Maximum size of all parts together in bytes. Anything beyond is cut off, with a note.
    """
    room = max_size
    parts: list[dict[str, Any]] = []
    for block in result.content:
        if isinstance(block, ImageContent):
            url = f"data:{block.mime_type};base64,{block.data}"
            if len(url) <= room:
                room -= len(url)
                parts.append({"type": "image", "image_url": url})
                continue
            text = f"[image of {len(url):,} bytes omitted: the result is too large]"
        else:
            text, room = _cut(_text(block), room)
        parts.append({"type": "text", "text": text})
    if not parts and result.structured_content is not None:
        text, _ = _cut(json.dumps(result.structured_content, ensure_ascii=False), room)
        return text
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def as_text(result: CallToolResult, max_size: int) -> str:
    """Return the text of a result, such as the reason of a failure."""
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    return _cut("\n".join(texts), max_size)[0] or "The tool failed without an error message."


def _text(block: Any) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource):
        if isinstance(block.resource, TextResourceContents):
            return block.resource.text
        return f"[{block.resource.mime_type or 'data'} at {block.resource.uri}, not shown]"
    if isinstance(block, ResourceLink):
        return f"[{block.name}: {block.uri}]"
    return f"[{block.type}, not shown]"


def _cut(text: str, room: int) -> tuple[str, int]:
    """Cut a text to `room` bytes, and return it with the remaining room."""
    if len(text) * 4 <= room:
        return text, room - len(text.encode(errors="replace"))
    raw = text.encode(errors="replace")
    if len(raw) <= room:
        return text, room - len(raw)
    return f"{raw[:room].decode(errors='ignore')}\n[cut off: {len(raw) - room:,} of {len(raw):,} bytes]", 0
