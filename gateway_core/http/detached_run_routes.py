"""`/v1/runs/{id}`: state, result and cancellation of detached runs, for the principal that started them.

The id is that of the request (`x-request-id`). A run is detached when its client disconnects and the agent's
`on_disconnect` setting allows the run to continue.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway_core.errors import NotFoundError, RunError
from gateway_core.gateway import RunningGateway
from gateway_core.http import activity_rendering, error_responses
from gateway_core.http.auth import authenticated
from gateway_core.http.chat.serializer import completion, fingerprint, reasoning_fields
from gateway_core.http.json_io import json_response
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.http.responses.serializer import CANCELLED
from gateway_core.runs.active_run import ActiveRun
from gateway_core.runs.run_events import Completed, Failed


class DetachedRunRoutes:
    """The endpoints.

    Args:
        gateway: The gateway that owns the runs.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described("Get a detached run", answers=schemas.RUN)
    async def get(self, request: Request) -> Response:
        """Return the run's state, with its result as a chat completion once it has completed."""
        return self._render(await self._find(request))

    @described("Cancel a detached run", answers=schemas.RUN)
    async def cancel(self, request: Request) -> Response:
        """Cancel the run if it is still active."""
        run = await self._find(request)
        if not run.over:
            run.stop(RunError("the run was cancelled", code=CANCELLED))
            await run.close()
        return self._render(run)

    async def _find(self, request: Request) -> ActiveRun:
        principal = await authenticated(request, self._gateway)
        run = self._gateway.detached_runs.find(principal.id, request.path_params["id"])
        if run is None:
            raise NotFoundError(
                "run not found",
                code="run_not_found",
                hint="only detached runs are kept, for the time set by [runs] keep_results",
            )
        return run

    def _render(self, run: ActiveRun) -> Response:
        last = run.recorded_events[-1] if run.over else None
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
            value |= {"status": "completed", "response": self._answer(run)}
        elif isinstance(last, Failed) and last.error.code != CANCELLED:
            value |= {"status": "failed", **error_responses.body(last.error, run.context.request_id)}
        return json_response(value)

    def _answer(self, run: ActiveRun) -> dict[str, Any]:
        config = self._gateway.config.clients
        shown = activity_rendering.make("plain", config).show(run.recorded_events)
        return completion(run.context.agent_id, fingerprint(run.served), shown, reasoning_fields(config.reasoning))
