"""`/admin/mcp`: the state of the MCP servers, and the approval of tools that changed. Only an admin gets here.

It tells no credential, no address and no header.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import NotFoundError, described

if TYPE_CHECKING:
    from gateway_plugins.mcp_tools.servers import Servers


def admin_routes(servers: "Callable[[], Servers | None]") -> list[BaseRoute]:
    """The plugin's routes.

    Args:
        servers: The servers, while there are any.
    """

    @described("The MCP servers, and the tools of theirs that have changed")
    async def state(_: Request) -> Response:
        known = servers()
        return _json({"servers": known.facts() if known else {}, "changes": known.changes() if known else []})

    @described(
        "Approve tools of an MCP server as they are now",
        query={"server": {"type": "string"}, "tool": {"type": "array", "items": {"type": "string"}}},
    )
    async def approve(request: Request) -> Response:
        name = request.query_params.get("server", "")
        known = servers()
        server = known.all.get(name) if known else None
        if server is None:
            raise NotFoundError("there is no such MCP server", param="server")
        try:
            approved = server.approve(request.query_params.getlist("tool") or None)
        except KeyError:
            raise NotFoundError("the MCP server has no such tool", param="tool") from None
        return _json({"server": name, "approved": approved})

    return [Route("/admin/mcp", state), Route("/admin/mcp/approve", approve, methods=["POST"])]


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
