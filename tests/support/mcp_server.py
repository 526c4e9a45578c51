"""A real MCP server, of the `mcp` package, with tools that are slow, big, broken or changed on demand.

    python -m tests.support.mcp_server                          # stdio
    python -m tests.support.mcp_server --http --port 0          # Streamable HTTP; the first line it prints is its port
    python -m tests.support.mcp_server --sse --port 0

`--describe TEXT` sets the description of `add`; `--log FILE` appends a line for each call.
"""

import argparse
import asyncio
import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Which(BaseModel):
    """The requested value."""

    which: str


def make(describe: str = "Add two numbers.", log: Path | None = None) -> MCPServer:
    """Create the server with its tools."""
    server = MCPServer("test server", log_level="ERROR")

    def note(line: str) -> None:
        if log is not None:
            with log.open("a") as file:
                file.write(f"{line}\n")

    def add(a: int, b: int) -> int:
        note("add")
        return a + b

    server.add_tool(add, description=describe)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def process_id() -> int:
        """The process id of the server."""
        return os.getpid()

    @server.tool()
    async def wait(seconds: float, ctx: Context) -> str:
        """Wait."""
        note("wait")
        await ctx.report_progress(1, 2, "half\x1b[31m way\nthere")
        await asyncio.sleep(seconds)
        return "waited"

    @server.tool()
    def big(size: int) -> str:
        """A long text."""
        return "x" * size

    @server.tool()
    def picture() -> list:
        """A text and an image."""
        return ["one pixel:", Image(data=PIXEL, format="png")]

    @server.tool()
    def weather() -> dict[str, int]:
        """Structured content."""
        return {"degrees": 18}

    @server.tool()
    def only_structured() -> CallToolResult:
        """Only structured content."""
        return CallToolResult(content=[], structured_content={"degrees": 18})

    @server.tool()
    def broken() -> CallToolResult:
        """Return an error result."""
        return CallToolResult(content=[TextContent(type="text", text="out of order")], is_error=True)

    @server.tool()
    def die() -> str:
        """End the server's process in the middle of the call."""
        note("die")
        os._exit(1)

    @server.tool()
    def headers(ctx: Context) -> str:
        """The headers of this call."""
        known = ("authorization", "x-user", "x-tenant", "x-other")
        return str({name: value for name, value in (ctx.headers or {}).items() if name.lower() in known})

    @server.tool()
    async def ask_back(ctx: Context) -> str:
        """Ask the user something."""
        answer = await ctx.elicit("Which one?", Which)
        return answer.action

    @server.tool(name="odd.name")
    def odd_name() -> str:
        """A tool whose name models do not support."""
        return "odd"

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Add a tool."""

        def grown() -> str:
            """A new tool."""
            return "grown"

        server.add_tool(grown)
        await ctx.notify_tools_changed()
        await ctx.session.send_tool_list_changed()
        return "done"

    return server


@contextmanager
def running(*arguments: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start an HTTP server in a separate process; yield the process and its port. It is killed on exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mcp_server", *(arguments or ("--http",)), "--port", str(port)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--sse", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--describe", default="Add two numbers.")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    server = make(options.describe, options.log)
    if not options.http and not options.sse:
        server.run(transport="stdio")
        return

    import uvicorn

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    print(listener.getsockname()[1], flush=True)
    app = server.sse_app() if options.sse else server.streamable_http_app(json_response=options.json)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    main()
