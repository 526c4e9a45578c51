"""`/openapi.json`: every route of this gateway, plugins' included, as OpenAPI 3.1 describes it.

Routes describe themselves: `described` puts what a route takes and answers on its endpoint; without it the first line
of the endpoint's docstring has to do. It knows no route by name.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from gateway_core.gateway import RunningGateway
from gateway_core.http.auth import authenticated, visible
from gateway_core.http.openapi.describe import described, description_of
from gateway_core.http.openapi.schemas import ANYTHING, ERROR, model_id

_OPEN = ("/healthz", "/readyz")
_ADMIN = ("/admin/", "/security/", "/metrics")


class OpenApi:
    """The endpoint.

    Args:
        gateway: Asked who asks.
        version: Of the gateway.
        routes: All routes, as they are mounted.
    """

    def __init__(self, gateway: RunningGateway, version: str, routes: Callable[[], Iterable[BaseRoute]]) -> None:
        self._gateway = gateway
        self._version = version
        self._routes = routes

    @described("This description; admins are told of the admin pages, too", answers=ANYTHING)
    async def get(self, request: Request) -> Response:
        """What the caller may ask for."""
        principal = await authenticated(request, self._gateway)
        models = [agent.id for agent in await visible(principal, self._gateway, self._gateway.catalog)]
        value = document(self._routes(), self._version, models, admin=principal.admin)
        return Response(orjson.dumps(value), media_type="application/json")


def document(
    routes: Iterable[BaseRoute], version: str, models: Sequence[str] = (), *, admin: bool = True
) -> dict[str, Any]:
    """The description.

    Args:
        routes: What to describe.
        version: Of the gateway.
        models: The models that there are.
        admin: Whether to describe the admin pages.
    """
    paths: dict[str, dict[str, Any]] = {}
    for path, route in _flat(routes):
        if path.startswith(_ADMIN) and not admin:
            continue
        plain = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
        for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
            paths.setdefault(plain, {})[method.lower()] = _operation(route, plain)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Agent Gateway", "version": version},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, "ModelId": model_id(models)},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _flat(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _flat(route.routes, prefix + route.path)
        elif isinstance(route, Route) and route.include_in_schema:
            yield prefix + route.path, route


def _operation(route: Route, path: str) -> dict[str, Any]:
    told: Mapping[str, Any] | None = description_of(route.endpoint)
    if told is None:
        summary = (inspect.getdoc(route.endpoint) or route.name).partition("\n")[0]
        content = {"application/json": {"schema": ANYTHING}}
        told = {"summary": summary, "responses": {"200": {"description": "Done", "content": content}}}
    names = re.findall(r"\{(\w+)\}", path)
    places = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation = {
        **told,
        "parameters": [*places, *told.get("parameters", ())],
        "responses": {
            **told["responses"],
            "4XX": {"description": "The request is at fault, or may not be made", "content": failure},
            "5XX": {"description": "The gateway, the agent or what stands behind them failed", "content": failure},
        },
    }
    if path in _OPEN:
        operation["security"] = []
    return operation
