"""`/healthz` says that the process lives, `/readyz` that it can take work. They name checks, and tell no more."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway_core.gateway import RunningGateway
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.types import Check


class Health:
    """The endpoints.

    Args:
        gateway: Whose state to tell.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described("Whether the process lives", content=schemas.PLAIN)
    async def alive(self, _: Request) -> Response:
        """200 as long as the process answers."""
        return PlainTextResponse("ok\n")

    @described("Whether it can take work", content=schemas.PLAIN)
    async def ready(self, _: Request) -> Response:
        """200 with the catalog built and everything needed well, 503 otherwise and while the gateway stops.

        Below the verdict stands a line for each thing that was looked at.
        """
        # At the stop nothing is asked any more: the answer has to be there at once.
        checks = [Check("catalog", self._gateway.ready)]
        if self._gateway.ready:
            checks += await self._gateway.hooks.readiness()
        lines = [
            f"{check.name}: {'ok' if check.ok else 'failed' if check.needed else 'failed, not needed'}"
            for check in checks
        ]
        if all(check.ok or not check.needed for check in checks):
            return PlainTextResponse("\n".join(["ready", *lines, ""]))
        return PlainTextResponse("\n".join(["not ready", *lines, ""]), 503, headers={"retry-after": "1"})
