"""`/healthz` says that the process lives, `/readyz` that it can take work. Both tell nothing else to anybody."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway_core.gateway import RunningGateway


class Health:
    """The endpoints.

    Args:
        gateway: Whose state to tell.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    async def alive(self, _: Request) -> Response:
        """200 as long as the process answers."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """200 with the catalog built, 503 before that and while the gateway stops."""
        if self._gateway.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready\n", 503, headers={"retry-after": "1"})
