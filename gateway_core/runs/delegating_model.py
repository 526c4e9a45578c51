"""The common part of the decorators of models: everything but the two calls is the decorated model's."""

from typing import Any

from agents import Model


class DelegatingModel(Model):
    """A model that passes calls on to another one. Subclasses define `get_response` and `stream_response`.

    Args:
        inner: The decorated model.
    """

    def __init__(self, inner: Model) -> None:
        self._inner = inner

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)
