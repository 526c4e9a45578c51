"""Simulates microsoft/mcp-gateway in front of a real MCP server: its paths, its sessions and its error responses.

Accepts POST only. A session belongs to the user that opened it. Returns 500 for an unknown session and for a failure of
the server behind it, 503 without a pod, and 401 with the URL of the resource metadata. Supports the protocol revisions
with sessions.
"""

import asyncio
import json
import socket
import threading
from types import TracebackType
from typing import Self

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METADATA = "https://mcp.example/.well-known/oauth-protected-resource"


class McpGatewayDouble:
    """The simulated mcp-gateway, in a separate thread.

    Args:
        behind: The port of the server behind each adapter; the router has the key `""`.
        token: The required bearer token; `None` for a development deployment.
    """

    def __init__(self, behind: dict[str, int], token: str | None = None) -> None:
        self.behind = behind
        self.token = token
        self.sessions: dict[str, tuple[str, str]] = {}
        self.users: list[tuple[str, str]] = []
        """User and method of each call."""
        self.fail_next: str | None = None
        """Return 500 for the next `tools/call`, "before" or "after" it reaches the server."""
        self.status_codes: list[int] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        app = Starlette(
            routes=[
                Route("/adapters", self._adapters),
                Route("/adapters/{name}/status", self._status),
                Route("/tools", self._tools),
                Route("/adapters/{name}/mcp", self._forward, methods=["POST"]),
                Route("/mcp", self._forward, methods=["POST"]),
            ]
        )
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[self._listener]), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)
        self._listener.close()

    def forget_sessions(self) -> None:
        """Forget all sessions, as mcp-gateway does after twelve hours."""
        self.sessions.clear()

    def _refused(self, request: Request) -> Response | None:
        if self.token is None or request.headers.get("authorization") == f"Bearer {self.token}":
            return None
        return Response(status_code=401, headers={"www-authenticate": f'Bearer resource_metadata="{METADATA}"'})

    async def _adapters(self, request: Request) -> Response:
        listed = [{"name": name, "imageName": "mcp-proxy", "replicaCount": 1} for name in self.behind if name]
        return self._refused(request) or JSONResponse(listed)

    async def _status(self, request: Request) -> Response:
        if request.path_params["name"] not in self.behind:
            return Response(status_code=404)
        return self._refused(request) or JSONResponse({"readyReplicas": 1, "replicaStatus": "Healthy"})

    async def _tools(self, request: Request) -> Response:
        return self._refused(request) or JSONResponse([{"name": "add"}])

    async def _forward(self, request: Request) -> Response:
        answer = self._refused(request) or await self._answer(request)
        self.status_codes.append(answer.status_code)
        return answer

    async def _answer(self, request: Request) -> Response:
        adapter = request.path_params.get("name", "")
        user = request.headers.get("x-dev-userid", "dev")
        body = await request.body()
        method = json.loads(body).get("method", "")
        self.users.append((user, method))
        if adapter not in self.behind:
            return Response(status_code=404)
        session = request.headers.get("mcp-session-id")
        if session is None and method != "initialize":
            return Response(status_code=400)
        if session is not None and self.sessions.get(session) != (user, adapter):
            return Response(status_code=500)
        if self.behind[adapter] == 0:
            return Response(status_code=503)
        fail, self.fail_next = (self.fail_next, None) if method == "tools/call" else (None, self.fail_next)
        if fail == "before":
            return Response(status_code=500)
        names = ("content-type", "accept", "mcp-session-id", "mcp-protocol-version")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
            try:
                found = await client.post(f"http://127.0.0.1:{self.behind[adapter]}/mcp", content=body, headers=headers)
            except httpx2.TransportError:
                return Response(status_code=500)
        if fail == "after":
            return Response(status_code=500)
        if session is None and (begun := found.headers.get("mcp-session-id")):
            self.sessions[begun] = (user, adapter)
        kept = {n: v for n, v in found.headers.items() if n in ("content-type", "mcp-session-id")}
        await asyncio.sleep(0)
        return Response(found.content, found.status_code, kept)
