"""`/admin/…`: what an operator asks a running gateway. Only an admin principal gets here.

It tells and reloads; it changes no setting.
"""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core.gateway import RunningGateway
from gateway_core.types import BrokenAgent, Catalog, ServedAgent


def admin_routes(gateway: RunningGateway) -> list[BaseRoute]:
    """The core's own admin routes."""

    async def agents(_: Request) -> Response:
        return _json(_catalog(gateway.catalog))

    async def plugins(_: Request) -> Response:
        facts = gateway.hooks.describe()
        return _json(
            {
                "configuration": gateway.reconfiguring.describe(),
                "plugins": [
                    {
                        "name": info.name,
                        "enabled": info.enabled,
                        "source": info.source,
                        "hooks": info.hooks,
                        "needs_restart": gateway.reconfiguring.needs_restart(info.name),
                        "facts": facts.get(info.name),
                    }
                    for info in gateway.plugins.infos
                ],
            }
        )

    async def tools(_: Request) -> Response:
        return _json({"tools": gateway.tools(), "threads": gateway.tool_threads()})

    async def reload(_: Request) -> Response:
        return _json(_catalog(await gateway.reload()))

    return [
        Route("/admin/agents", agents),
        Route("/admin/plugins", plugins),
        Route("/admin/tools", tools),
        Route("/admin/reload", reload, methods=["POST"]),
    ]


def _catalog(catalog: Catalog) -> dict[str, Any]:
    served = [_served(agent, stale=catalog.broken.get(agent.id)) for agent in catalog.agents.values()]
    broken = [_broken(agent) for agent in catalog.broken.values() if agent.id not in catalog.agents]
    return {"generation": catalog.generation, "agents": [*served, *broken]}


def _served(agent: ServedAgent, stale: BrokenAgent | None) -> dict[str, Any]:
    return {
        "id": agent.id,
        "state": "stale" if stale else "ok",
        "source": agent.entry.source,
        "digest": agent.entry.digest,
        "loaded_at": agent.loaded_at,
        "description": agent.description,
        "warnings": agent.warnings,
        "diagnosis": stale.diagnosis() if stale else None,
    }


def _broken(agent: BrokenAgent) -> dict[str, Any]:
    return {"id": agent.id, "state": "broken", "source": agent.source, "diagnosis": agent.diagnosis()}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
