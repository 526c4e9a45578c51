"""`/v1/runs/{id}`: what became of a run whose client left, for the principal that started it.

The id is the request's, as it stood in `x-request-id`. Only runs of agents whose setting `on_disconnect` lets them
outlive their client are found here.
"""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway_core.errors import NotFoundError, RunError
from gateway_core.gateway import RunningGateway
from gateway_core.http import activity_rendering, error_responses
from gateway_core.http.auth import authenticated
from gateway_core.http.chat.serializer import completion, fingerprint, reasoning_fields
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.runs.active_run import ActiveRun
from gateway_core.types import Completed, Failed

CANCELLED = "run_cancelled"


class DetachedRunRoutes:
    """The endpoints.

    Args:
        gateway: Whose runs to tell of.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described("A run that outlived its client", answers=schemas.RUN)
    async def get(self, request: Request) -> Response:
        """The state of the run, and its answer as a chat completion when it is through."""
        return self._tell(await self._find(request))

    @described("End a run that outlived its client", answers=schemas.RUN)
    async def cancel(self, request: Request) -> Response:
        """End the run, if it is still on."""
        run = await self._find(request)
        if not run.over:
            run.stop(RunError("the run was cancelled", code=CANCELLED))
            await run.close()
        return self._tell(run)

    async def _find(self, request: Request) -> ActiveRun:
        principal = await authenticated(request, self._gateway)
        run = self._gateway.detached_runs.find(principal.id, request.path_params["id"])
        if run is None:
            raise NotFoundError(
                "there is no such run",
                code="run_not_found",
                hint="only runs that outlived their client are kept, for the time of [runs] keep_results",
            )
        return run

    def _tell(self, run: ActiveRun) -> Response:
        last = run.told[-1] if run.over else None
        value: dict[str, Any] = {
            "id": run.context.request_id,
            "object": "run",
            "model": run.context.agent_id,
            "created": int(run.context.started),
            "status": "cancelled" if run.closed else "in_progress",
            "response": None,
            "error": None,
        }
        if isinstance(last, Completed):
            value |= {"status": "completed", "response": orjson.Fragment(self._answer(run))}
        elif isinstance(last, Failed) and last.error.code != CANCELLED:
            value |= {"status": "failed", **error_responses.body(last.error, run.context.request_id)}
        return Response(orjson.dumps(value), media_type="application/json")

    def _answer(self, run: ActiveRun) -> bytes:
        config = self._gateway.config.clients
        rendering = activity_rendering.make("plain", max_result=config.max_result, reasoning=config.reasoning != "none")
        shown = rendering.show(run.told)
        return completion(run.context.agent_id, fingerprint(run.served), shown, reasoning_fields(config.reasoning))
