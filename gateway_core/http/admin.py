"""Admin endpoints of the core (`/admin/...`): inspect and reload a running gateway.

They require an admin principal and do not change settings.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core.errors import NotFoundError
from gateway_core.gateway import RunningGateway
from gateway_core.http.json_io import json_response
from gateway_core.types import BrokenAgent, ServedAgent


def admin_routes(gateway: RunningGateway) -> list[BaseRoute]:
    """Returns the admin routes of the core."""

    async def agents(_: Request) -> Response:
        """List all agents with their components, run statistics and load errors."""
        return json_response(_catalog(gateway))

    async def plugins(_: Request) -> Response:
        """List all plugins with their details, and the state of the configuration."""
        facts = gateway.hooks.describe()
        return json_response(
            {
                "configuration": gateway.reconfigurer.describe(),
                "plugins": [
                    {
                        "name": info.name,
                        "enabled": info.enabled,
                        "source": info.source,
                        "hooks": info.hooks,
                        "needs_restart": gateway.reconfigurer.needs_restart(info.name),
                        "facts": facts.get(info.name),
                    }
                    for info in gateway.plugins.infos
                ],
            }
        )

    async def tools(_: Request) -> Response:
        """List the gateway's tools with the agents that use them, and the threads that tools occupy."""
        return json_response({"tools": gateway.tools(), "threads": gateway.tool_threads()})

    async def reload(_: Request) -> Response:
        """Reload the configuration, rediscover agents and load the changed ones."""
        await gateway.reload()
        return json_response(_catalog(gateway))

    async def reload_one(request: Request) -> Response:
        """Reload, and load one agent again even if its files did not change."""
        entry_id = gateway.catalog.resolve(request.path_params["id"])
        if entry_id is None:
            raise NotFoundError(f"the agent '{request.path_params['id'][:100]}' does not exist", code="model_not_found")
        await gateway.reload(entry_id)
        return json_response(_catalog(gateway))

    return [
        Route("/admin/agents", agents),
        Route("/admin/plugins", plugins),
        Route("/admin/tools", tools),
        Route("/admin/reload", reload, methods=["POST"]),
        Route("/admin/agents/{id:path}/reload", reload_one, methods=["POST"]),
    ]


def _catalog(gateway: RunningGateway) -> dict[str, Any]:
    catalog = gateway.catalog
    served = [_served(agent, gateway) for agent in catalog.agents.values()]
    stale = {failure.id for agent in catalog.agents.values() if (failure := catalog.failure_of(agent))}
    broken = [_broken(agent) for agent in catalog.broken.values() if agent.id not in stale]
    loading = [{"id": entry.id, "state": "loading", "source": entry.source} for entry in catalog.loading.values()]
    return {"generation": catalog.generation, "agents": [*served, *broken, *loading]}


def _served(agent: ServedAgent, gateway: RunningGateway) -> dict[str, Any]:
    stale = gateway.catalog.failure_of(agent)
    return {
        "id": agent.id,
        "state": "stale" if stale else "ok",
        "source": agent.entry.source,
        "digest": agent.entry.digest,
        "loaded_at": agent.loaded_at,
        "description": agent.description,
        "export": agent.export,
        "warnings": agent.warnings,
        "diagnosis": stale.diagnosis() if stale else None,
        **gateway.facts(agent.id),
    }


def _broken(agent: BrokenAgent) -> dict[str, Any]:
    return {"id": agent.id, "state": "broken", "source": agent.source, "diagnosis": agent.diagnosis()}
