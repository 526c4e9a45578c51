"""`/admin/mcp`: the state of the MCP servers, and the approval of tools that changed. Only an admin gets here.

It tells no credential, no address and no header.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import NotFoundError

if TYPE_CHECKING:
    from gateway_plugins.mcp_tools.server import Server


def admin_routes(servers: "Callable[[], Mapping[str, Server]]") -> list[BaseRoute]:
    """The plugin's routes.

    Args:
        servers: The servers there are, by name.
    """

    async def state(_: Request) -> Response:
        told = {name: {**server.facts(), "changes": server.changes()} for name, server in servers().items()}
        return _json({"servers": told})

    async def approve(request: Request) -> Response:
        name = request.query_params.get("server", "")
        server = servers().get(name)
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
