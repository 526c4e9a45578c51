"""Routes requests as Starlette does, with the gateway's error responses for unknown paths and methods."""

from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.routing import Router as StarletteRouter
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway_core.http import error_responses
from gateway_core.http.middleware.request_context import request_id_of
from gateway_core.http.sent_response import response_of


class Router(StarletteRouter):
    """Serves a path without a route like the path that differs only in the slash at its end.

    It also handles Starlette's exceptions, which takes two of Starlette's own middleware, and a frame of each in every
    request.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except HTTPException as error:
            if scope["type"] != "http" or response_of(scope).started:
                raise
            await self._response(Request(scope, receive), error)(scope, receive, send)
        except WebSocketException as error:
            await WebSocket(scope, receive, send).close(error.code, error.reason)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        twin = {**scope, "path": path.rstrip("/") if path.endswith("/") else f"{path}/"}
        twin.pop("raw_path", None)
        if scope["type"] == "http" and any(route.matches(twin)[0] != Match.NONE for route in self.routes):
            await self.app(twin, receive, send)
        else:
            await super().not_found(scope, receive, send)

    def _response(self, request: Request, error: HTTPException) -> Response:
        problem = error_responses.from_starlette(request, error)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(self._allowed_methods(request))) or headers.get("Allow", "")
        if problem is None:
            return Response(status_code=204, headers=headers)
        response = error_responses.response(problem, request_id_of(request.scope))
        response.headers.update(headers)
        return response

    def _allowed_methods(self, request: Request) -> set[str]:
        """Return the methods of all routes with the path of a request; Starlette names those of the first one only."""
        path = request.scope["path"].rstrip("/")
        scopes = [{**request.scope, "path": each, "root_path": ""} for each in (path, f"{path}/")]
        routes = [route for route in self.routes if isinstance(route, Route)]
        found = [route for route in routes for scope in scopes if route.matches(scope)[0] != Match.NONE]
        return {method for route in found for method in route.methods or ()}
