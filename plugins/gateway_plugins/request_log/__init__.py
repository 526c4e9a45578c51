"""Formats log records as JSON or console lines, and logs every request.

Each line contains its context (request, trace, principal, agent), including lines of the SDK and of agents. A thread
writes the lines, so that a slow reader does not delay requests. The plugin does not log content: no prompts, answers,
arguments or keys, and only the type and location of an exception.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from attrs import frozen
from starlette.middleware import Middleware

from gateway_core import Count, Gateway, hookimpl
from gateway_plugins.request_log.access import AccessLog
from gateway_plugins.request_log.formats import formatter
from gateway_plugins.request_log.pipeline import Pipeline


@frozen
class Settings:
    """`[plugins.request_log]`."""

    format: Literal["auto", "json", "console"] = "auto"
    """Output format; `auto` is `console` on a terminal and `json` otherwise."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum level of the lines that are written."""
    requests: bool = True
    """Whether to log each request."""
    queue: Count = Count(10_000)
    """Maximum number of queued lines; when the queue is full, lines are dropped and counted."""


class RequestLog:
    """The plugin `request_log`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._config = config
        self._pipelines: list[Pipeline] = []

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Replaces the root logger's console handlers, and restores them on shutdown. Other handlers are unchanged."""
        root = logging.getLogger()
        level = root.level
        self._pipelines = [
            Pipeline(handler, formatter(self._config.format, handler.stream), self._config.queue)
            for handler in root.handlers
            if type(handler) is logging.StreamHandler
        ]
        with _structlog_redirected(bool(self._pipelines)):
            for pipeline in self._pipelines:
                pipeline.start()
            if self._pipelines:
                root.setLevel(self._config.level)
            try:
                yield
            finally:
                root.setLevel(level)
                for pipeline in self._pipelines:
                    pipeline.stop()

    @hookimpl
    def middleware(self) -> Iterable[Middleware]:
        """Adds the access log, if enabled."""
        return [Middleware(AccessLog)] if self._config.requests else []

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the format and the number of dropped lines."""
        return {"format": self._config.format, "dropped": sum(pipeline.dropped for pipeline in self._pipelines)}


@contextmanager
def _structlog_redirected(enabled: bool) -> Iterator[None]:
    """Sends structlog events to the standard library's logging, unless an agent has configured structlog."""
    import structlog

    if not enabled or structlog.is_configured():
        yield
        return
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
