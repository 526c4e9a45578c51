"""Reduces the memory of Hypercorn's connections.

A gateway holds thousands of connections whose models are silent. Hypercorn keeps the last data that it read, which is
the request's body, and a large queue for each request.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import hypercorn.asyncio.run
import hypercorn.asyncio.tcp_server
import hypercorn.utils
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup, _handle
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, RawData

from gateway_core.small_queue import SmallQueue


def reduce_memory() -> None:
    """Install the replacements for all future connections of this process. Idempotent."""
    hypercorn.asyncio.run.TCPServer = _TCPServer  # type: ignore[attr-defined]
    hypercorn.utils.ASGIWrapper = _Application  # type: ignore[attr-defined]
    hypercorn.asyncio.tcp_server.TaskGroup = _TaskGroup  # type: ignore[attr-defined]


class _TCPServer(TCPServer):
    async def _read_data(self) -> None:
        """Do as Hypercorn without a `read_timeout`, but do not hold the data while waiting for more."""
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:  # includes those of TLS, and timeouts
                break
            await self.protocol.handle(RawData(data))
            del data
        await self.protocol.handle(Closed())


class _Application(ASGIWrapper):
    def __call__(self, scope: Any, receive: Any, send: Any, *_: Any) -> Any:
        return self.app(scope, receive, send)


class _TaskGroup(TaskGroup):
    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        queue: SmallQueue[Any] = SmallQueue(config.max_app_queue_size)
        # The last two arguments are for WSGI.
        self.spawn(_handle, app, config, scope, queue.get, send, None, None)
        return queue.put
