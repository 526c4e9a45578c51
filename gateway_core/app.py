"""Builds the Starlette application of a gateway, with the routes and middleware of its plugins.

The application's only state is the gateway. The module has no global state, so one process can host several gateways.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import __version__
from gateway_core.config.settings import Config, load_config
from gateway_core.errors import GatewayError
from gateway_core.gateway import RunningGateway
from gateway_core.http import client_tools
from gateway_core.http.admin import admin_routes
from gateway_core.http.auth import admin_only
from gateway_core.http.chat.endpoint import ChatCompletions
from gateway_core.http.chat.stored import StoredCompletions
from gateway_core.http.detached_run_routes import DetachedRunRoutes
from gateway_core.http.health import Health
from gateway_core.http.idempotency import Idempotency
from gateway_core.http.middleware.errors import ErrorMiddleware
from gateway_core.http.middleware.request_context import HEADER, RequestContextMiddleware
from gateway_core.http.models import Models
from gateway_core.http.openapi.document import OpenApi
from gateway_core.http.responses.endpoint import Responses
from gateway_core.http.responses.unsupported import PATHS, UnsupportedPath, reject_web_socket
from gateway_core.http.router import Router
from gateway_core.http.streaming_endpoint import IGNORED_ATTACHMENTS


def build(config: Config | None = None, *, plugins: Mapping[str, type] | None = None) -> Starlette:
    """Create the application. Plugins are loaded here, agents when the application's lifespan starts.

    Args:
        config: The configuration. Default: the result of `load_config()`.
        plugins: Additional plugin classes by name, which are not installed as entry points.

    Raises:
        ConfigError: A setting is invalid.
        PluginError: A plugin cannot be loaded.
    """
    gateway = RunningGateway(config or load_config(), plugins)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = _Application(middleware=_middleware(gateway))
    # A redirect would lose the body of a POST, and name the wrong scheme behind a proxy that terminates TLS.
    app.router = Router(_routes(gateway), redirect_slashes=False, lifespan=lifespan)
    app.state.gateway = gateway
    return app


class _Application(Starlette):
    def build_middleware_stack(self) -> ASGIApp:
        """Return the router within the middleware. Starlette would add two for errors, which the gateway's handle."""
        app: ASGIApp = self.router
        for middleware, arguments, named in reversed(self.user_middleware):
            app = middleware(app, *arguments, **named)
        return app


class _Cors(CORSMiddleware):
    """Answers a preflight for a private network in both of its names.

    https://wicg.github.io/local-network-access/
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200 and "access-control-request-local-network" in request_headers:
            response.headers["access-control-allow-local-network"] = "true"
        return response


def _routes(gateway: RunningGateway) -> list[BaseRoute]:
    models, health, runs = Models(gateway), Health(gateway), DetachedRunRoutes(gateway)
    idempotency = Idempotency(lambda: gateway.config.http)
    responses, completions = Responses(gateway, idempotency), StoredCompletions(gateway)
    admin = [_guarded(route, gateway) for route in [*admin_routes(gateway), *gateway.hooks.admin_routes()]]
    public: list[BaseRoute] = []
    public += [
        Route("/openapi.json", OpenApi(gateway, __version__, public, admin).get),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/v1/models", models.list),
        Route("/v1/models/{model:path}", models.one),
        Route("/v1/chat/completions", ChatCompletions(gateway, idempotency), methods=["POST"]),
        Route("/v1/chat/completions", completions.list),
        Route("/v1/chat/completions/{id}", completions.get),
        Route("/v1/chat/completions/{id}", completions.update, methods=["POST"]),
        Route("/v1/chat/completions/{id}", completions.delete, methods=["DELETE"]),
        Route("/v1/chat/completions/{id}/messages", completions.messages),
        Route("/v1/responses", responses, methods=["POST"]),
        WebSocketRoute("/v1/responses", reject_web_socket),
        *(Route(path, UnsupportedPath(gateway).post, methods=["POST"], include_in_schema=False) for path in PATHS),
        Route("/v1/responses/{id}", responses.get),
        Route("/v1/responses/{id}", responses.delete, methods=["DELETE"]),
        Route("/v1/responses/{id}/input_items", responses.input_items),
        Route("/v1/responses/{id}/cancel", responses.cancel, methods=["POST"]),
        Route("/v1/runs/{id}", runs.get),
        Route("/v1/runs/{id}/cancel", runs.cancel, methods=["POST"]),
        *gateway.hooks.routes(),
    ]
    return [*public, *admin]


def _guarded(route: BaseRoute, gateway: RunningGateway) -> BaseRoute:
    """Restrict a route to admin principals."""
    if not isinstance(route, Route | Mount):
        raise TypeError(f"an admin route must be a Route or a Mount, not {type(route).__name__}")
    inner = route.app

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if not gateway.serves_admin_pages(scope.get("server")):
            # The same response as for an unknown path.
            raise HTTPException(404)
        scope["state"]["principal"] = await admin_only(Request(scope, receive), gateway)
        await inner(scope, receive, send)

    route.app = guard
    return route


def _middleware(gateway: RunningGateway) -> list[Middleware]:
    def announce(error: GatewayError, request_id: str) -> None:
        # The end of a run has already announced the run's error.
        if error.request_id is None:
            error.request_id = request_id
            gateway.hooks.on_error(error)

    layers = [Middleware(RequestContextMiddleware, closing=lambda: gateway.stopping)]
    if origins := gateway.config.http.cors_origins:
        layers.append(
            Middleware(
                _Cors,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=[HEADER.decode(), client_tools.HEADER, IGNORED_ATTACHMENTS],
                allow_private_network=True,
            )
        )
    # Inside CORS, so that scripts in a browser can read error responses.
    layers.append(Middleware(ErrorMiddleware, announce=announce, limits=gateway.config.http))
    for layer in gateway.hooks.middleware():
        layers += [layer, Middleware(ErrorMiddleware, announce=announce)]
    return layers
