"""Resolves a model name to an upstream and the upstream's name of the model.

Precedence: an exact alias of any upstream; `upstream/rest`, where the rest may contain slashes; a name that an upstream
lists; else the default upstream with its default model. This module does no I/O.
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from gateway_plugins.upstreams.settings import Upstream


@frozen
class Route:
    """The upstream and the model that a name resolves to."""

    upstream: str
    model: str
    found: bool
    """Whether the name is known; otherwise the default is used."""


class Router:
    """Resolves model names for a fixed set of upstreams.

    Args:
        upstreams: Upstreams by name, in the order of the configuration.
        default: Name of the default upstream.
        listed: Models that each upstream lists, if known.
    """

    def __init__(self, upstreams: Mapping[str, Upstream], default: str, listed: Mapping[str, Sequence[str]]) -> None:
        self._upstreams = upstreams
        self._default = default
        self._listed = listed

    def route(self, name: str | None) -> Route:
        """Resolve a name; `None` stands for an agent without a model."""
        if name is None:
            return self._default_of(self._default, None)
        order = self._in_order()
        return (
            self._alias(name, order)
            or self._prefixed(name)
            or self._offered(name, order)
            or self._default_of(self._default, name)
        )

    def route_at(self, upstream: str, name: str | None) -> Route:
        """Resolve a name at one upstream only, for a failover."""
        if name is None:
            return self._default_of(upstream, None)
        return self._alias(name, [upstream]) or self._offered(name, [upstream]) or self._default_of(upstream, name)

    def _alias(self, name: str, order: Sequence[str]) -> Route | None:
        for upstream in order:
            if (model := self._upstreams[upstream].models.get(name)) is not None:
                return Route(upstream, model, found=True)
        return None

    def _prefixed(self, name: str) -> Route | None:
        prefix, slash, rest = name.partition("/")
        return Route(prefix, rest, found=True) if slash and rest and prefix in self._upstreams else None

    def _offered(self, name: str, order: Sequence[str]) -> Route | None:
        for upstream in order:
            listed = self._listed.get(upstream, ())
            # Ollama lists `llama3.2:latest` for the common name `llama3.2`.
            for candidate in (name, f"{name}:latest"):
                if candidate in listed:
                    return Route(upstream, candidate, found=True)
        return None

    def _default_of(self, upstream: str, name: str | None) -> Route:
        configured = self._upstreams[upstream].default_model
        listed = self._listed.get(upstream)
        if configured is not None:
            return Route(upstream, configured, found=False)
        if name is not None and listed is None:
            # Its models are unknown, so the name is passed on unchanged.
            return Route(upstream, name, found=True)
        return Route(upstream, listed[0] if listed else OPENAI_DEFAULT, found=False)

    def _in_order(self) -> list[str]:
        """Return all upstreams, the default first."""
        return [self._default, *(name for name in self._upstreams if name != self._default)]


OPENAI_DEFAULT = "gpt-5-mini"
"""The model for a server that lists no models and has no configured default."""
