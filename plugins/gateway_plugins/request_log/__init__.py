"""Formats log records as JSON or console lines, and logs every request.

Each line contains its context (request, trace, principal, agent), including lines of the SDK and of agents. A thread
writes the lines, so that a slow reader does not delay requests. The plugin does not log content: no prompts, answers,
arguments or keys, and only the type and location of an exception.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, TextIO

from attrs import frozen
from starlette.middleware import Middleware

from gateway_core import Count, Gateway, Outcome, RunContext, Usage, hookimpl
from gateway_plugins.request_log.access import AccessLog
from gateway_plugins.request_log.console import ConsoleFormatter
from gateway_plugins.request_log.formats import JsonFormatter
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
        self._usage: dict[str, Usage] = {}

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Replaces the root logger's console handlers, and restores them on shutdown. Other handlers are unchanged."""
        root = logging.getLogger()
        level = root.level
        self._pipelines = [
            Pipeline(handler, self._formatter(handler.stream), self._config.queue)
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
        return [Middleware(AccessLog, usage=self._usage)] if self._config.requests else []

    @hookimpl
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Counts the tokens of the request's run."""
        if run.request_id in self._usage:
            self._usage[run.request_id] += outcome.usage

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the format and the number of dropped lines."""
        return {"format": self._config.format, "dropped": sum(pipeline.dropped for pipeline in self._pipelines)}

    def _formatter(self, stream: TextIO) -> logging.Formatter:
        if self._config.format == "console" or (self._config.format == "auto" and stream.isatty()):
            return ConsoleFormatter(stream, details=self._config.level == "DEBUG")
        return JsonFormatter()


@contextmanager
def _structlog_redirected(enabled: bool) -> Iterator[None]:
    """Sends structlog events to the standard library's logging, unless an agent has configured structlog."""
    if not enabled:
        yield
        return
    import structlog

    if structlog.is_configured():
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
