"""`GET /openapi.json`: builds the OpenAPI 3.1 document of all routes, including those of plugins.

The decorator `described` supplies the description of an endpoint; without it, the first line of the endpoint's
docstring is the summary.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from gateway_core.gateway import RunningGateway
from gateway_core.http.auth import authenticated, visible
from gateway_core.http.json_io import json_response
from gateway_core.http.openapi.describe import described, description_of
from gateway_core.http.openapi.schemas import ANYTHING, ERROR, model_id

_OPEN = ("/healthz", "/readyz")


class OpenApi:
    """The endpoint.

    Args:
        gateway: Authenticates the caller and supplies the models.
        version: The gateway's version.
        public: The routes that every caller sees.
        admin: The routes that only admins see.
    """

    def __init__(
        self, gateway: RunningGateway, version: str, public: Sequence[BaseRoute], admin: Sequence[BaseRoute]
    ) -> None:
        self._gateway = gateway
        self._version = version
        self._public = public
        self._admin = admin

    @described("Get this document; for admins it includes the admin endpoints", answers=ANYTHING)
    async def get(self, request: Request) -> Response:
        """Return the endpoints and models that the caller is allowed to use."""
        principal = await authenticated(request, self._gateway)
        models = [agent.id for agent in await visible(principal, self._gateway, self._gateway.catalog)]
        routes = [*self._public, *(self._admin if principal.admin else ())]
        return json_response(document(routes, self._version, models, guarded=self._gateway.hooks.guarded))


def document(
    routes: Iterable[BaseRoute], version: str, models: Sequence[str] = (), *, guarded: bool = True
) -> dict[str, Any]:
    """Builds the OpenAPI document.

    Args:
        routes: The routes to describe.
        version: The gateway's version.
        models: Ids of the available models.
        guarded: Whether requests require a key.
    """
    paths: dict[str, dict[str, Any]] = {}
    for path, route in _flat(routes):
        plain = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
        for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
            paths.setdefault(plain, {})[method.lower()] = _operation(route, plain)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Agent Gateway", "version": version},
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR, "ModelId": model_id(models)},
            **({"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if guarded else {}),
        },
        "security": [{"key": []}] if guarded else [],
    }


def _flat(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from _flat(route.routes, prefix + route.path)
        elif isinstance(route, Route) and route.include_in_schema:
            yield prefix + route.path, route


def _operation(route: Route, path: str) -> dict[str, Any]:
    base: Mapping[str, Any] | None = description_of(route.endpoint)
    if base is None:
        summary = (inspect.getdoc(route.endpoint) or route.name).partition("\n")[0]
        content = {"application/json": {"schema": ANYTHING}}
        base = {"summary": summary, "responses": {"200": {"description": "Success", "content": content}}}
    names = re.findall(r"\{(\w+)\}", path)
    path_parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation = {
        **base,
        "parameters": [*path_parameters, *base.get("parameters", ())],
        "responses": {
            **base["responses"],
            "4XX": {"description": "The request is invalid or not allowed", "content": failure},
            "5XX": {"description": "The gateway, the agent or an upstream failed", "content": failure},
        },
    }
    if path in _OPEN:
        operation["security"] = []
    return operation
