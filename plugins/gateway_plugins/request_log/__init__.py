"""One pipeline for every log line, and one line for every request.

Each line carries what it belongs to (request, trace, principal, agent), also lines of the SDK and of agents. Lines are
written by a thread, so that whoever reads them slowly delays nobody. It logs no content by itself: no prompt, answer,
argument or key, and of an exception only what and where it was.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from attrs import frozen
from starlette.middleware import Middleware

from gateway_core import Gateway, hookimpl
from gateway_plugins.request_log.access import AccessLog
from gateway_plugins.request_log.formats import formatter
from gateway_plugins.request_log.pipeline import Pipeline


@frozen
class Settings:
    """`[plugins.request_log]`."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is `console` on a terminal, and `json` elsewhere."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lines below it are not written."""
    requests: bool = True
    """Whether each request is a line."""
    queue: int = 10_000
    """How many lines may wait to be written; further ones are dropped and counted."""


class RequestLog:
    """The plugin `request_log`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._config = config
        self._pipelines: list[Pipeline] = []

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Take over the process's console handlers. A program that embeds the gateway keeps handlers of its own."""
        root = logging.getLogger()
        level = root.level
        self._pipelines = [
            Pipeline(handler, formatter(self._config.format, handler.stream), self._config.queue)
            for handler in root.handlers
            if type(handler) is logging.StreamHandler
        ]
        with _structlog_too(bool(self._pipelines)):
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
        """Writes the line of each request."""
        return [Middleware(AccessLog)] if self._config.requests else []

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How lines are written, and how many were dropped because nobody read them in time."""
        return {"format": self._config.format, "dropped": sum(pipeline.dropped for pipeline in self._pipelines)}


@contextmanager
def _structlog_too(on: bool) -> Iterator[None]:
    """Lines that agents write with structlog go the same way, if they left its configuration alone."""
    import structlog

    if not on or structlog.is_configured():
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
