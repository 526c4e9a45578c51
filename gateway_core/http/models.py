"""`GET /v1/models` and `GET /v1/models/{id}`: lists the agents available to the caller as OpenAI model objects."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway_core.gateway import RunningGateway
from gateway_core.http.auth import authenticated, permitted_agent, visible
from gateway_core.http.json_io import json_response
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.types import ServedAgent


class Models:
    """The endpoints.

    Args:
        gateway: The gateway whose agents are listed.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described("List the agents available to the caller", answers=schemas.MODELS)
    async def list(self, request: Request) -> Response:
        """Return all agents that the caller is allowed to use."""
        principal = await authenticated(request, self._gateway)
        agents = await visible(principal, self._gateway, self._gateway.catalog)
        return json_response({"object": "list", "data": [_model(agent) for agent in agents]})

    @described("Get an agent", answers=schemas.MODEL)
    async def one(self, request: Request) -> Response:
        """Return the agent named in the path. A slash at the end has no meaning."""
        if not (name := request.path_params["model"].rstrip("/")):
            return await self.list(request)
        principal = await authenticated(request, self._gateway)
        served = await permitted_agent(name, principal, self._gateway, request)
        return json_response(_model(served))


def _model(agent: ServedAgent) -> dict[str, Any]:
    # `name`, `description` and `info` extend OpenAI's object; Open WebUI shows them.
    return {
        "id": agent.id,
        "object": "model",
        "created": int(agent.loaded_at),
        "owned_by": "agent-gateway",
        "name": agent.display_name,
        "description": agent.description,
        "info": {"meta": {"description": agent.description, **agent.meta}},
    }
