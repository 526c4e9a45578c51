"""`/admin/mcp`: shows the state of the MCP servers, and approves changed tools. Restricted to admins.

Responses contain no credentials, addresses or headers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import NotFoundError, described, json_response

if TYPE_CHECKING:
    from gateway_plugins.mcp_tools.registry import Servers


def admin_routes(servers: "Callable[[], Servers | None]") -> list[BaseRoute]:
    """Return the plugin's admin routes.

    Args:
        servers: Returns the servers, or `None` while none are running.
    """

    @described("List the MCP servers and their changed tools")
    async def state(_: Request) -> Response:
        known = servers()
        return json_response({"servers": known.facts() if known else {}, "changes": known.changes() if known else []})

    @described(
        "Approve the current versions of an MCP server's tools",
        query={"server": {"type": "string"}, "tool": {"type": "array", "items": {"type": "string"}}},
    )
    async def approve(request: Request) -> Response:
        name = request.query_params.get("server", "")
        known = servers()
        server = known.all.get(name) if known else None
        if server is None:
            raise NotFoundError("MCP server not found", param="server")
        try:
            approved = server.approve(request.query_params.getlist("tool") or None)
        except KeyError:
            raise NotFoundError("tool not found on the MCP server", param="tool") from None
        return json_response({"server": name, "approved": approved})

    return [Route("/admin/mcp", state), Route("/admin/mcp/approve", approve, methods=["POST"])]
