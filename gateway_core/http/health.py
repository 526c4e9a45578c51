"""Health endpoints: `/healthz` for liveness, `/readyz` for readiness. They report the names of checks, not details."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway_core.gateway import RunningGateway
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.types import Check


class Health:
    """The endpoints.

    Args:
        gateway: The gateway whose state is reported.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described("Check liveness", content=schemas.PLAIN)
    async def alive(self, _: Request) -> Response:
        """Return 200 while the process responds."""
        return PlainTextResponse("ok\n")

    @described("Check readiness", content=schemas.PLAIN)
    async def ready(self, _: Request) -> Response:
        """Return 200 when the catalog is built and all required checks pass; 503 otherwise and during shutdown.

        The body has one line for the overall state and one for each check.
        """
        # During shutdown, skip the plugins' checks: the response must be immediate.
        if (progress := self._loading()) is not None:
            return PlainTextResponse(f"not ready\ncatalog: {progress}\n", 503, headers={"retry-after": "1"})
        checks = [Check("catalog", self._gateway.ready)]
        if self._gateway.ready:
            checks += await self._gateway.hooks.readiness()
        lines = [
            f"{check.name}: {'ok' if check.ok else 'failed' if check.needed else 'failed (optional)'}"
            for check in checks
        ]
        if all(check.ok or not check.needed for check in checks):
            return PlainTextResponse("\n".join(["ready", *lines, ""]))
        return PlainTextResponse("\n".join(["not ready", *lines, ""]), 503, headers={"retry-after": "1"})

    def _loading(self) -> str | None:
        """Describe the progress of the start, without names; `None` once all agents are loaded."""
        catalog = self._gateway.catalog
        if catalog.generation or self._gateway.engine.stopping:
            return None
        done = len({*catalog.agents, *catalog.broken})
        return f"loading ({done} of {done + len(catalog.loading)} agents)" if catalog.loading else "loading"
