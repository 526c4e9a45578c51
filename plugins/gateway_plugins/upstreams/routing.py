"""Which upstream serves a model's name, and what is the model called there?

In this order: an exact alias of some upstream; `upstream/rest`, where the rest may hold slashes; a name that an
upstream lists; else the default upstream with its default model. Pure: it asks no server.
"""

from collections.abc import Mapping, Sequence

from attrs import frozen

from gateway_plugins.upstreams.settings import Upstream


@frozen
class Route:
    """Where a name leads."""

    upstream: str
    model: str
    found: bool
    """Whether the name was known; if not, the default takes its place."""


class Router:
    """Routes names over a fixed set of upstreams.

    Args:
        upstreams: By name, in the order of the configuration.
        default: The upstream for all other names.
        listed: The models that each upstream says it has, where it said so.
    """

    def __init__(self, upstreams: Mapping[str, Upstream], default: str, listed: Mapping[str, Sequence[str]]) -> None:
        self._upstreams = upstreams
        self._default = default
        self._listed = listed

    def route(self, name: str | None) -> Route:
        """Where a name leads; `None` is an agent that names no model."""
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
        """Where a name leads at one upstream, which takes another's place."""
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
            # Ollama lists `llama3.2:latest` for what everybody calls `llama3.2`.
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
            # It does not say what it has, so the name is worth a try.
            return Route(upstream, name, found=True)
        return Route(upstream, listed[0] if listed else OPENAI_DEFAULT, found=False)

    def _in_order(self) -> list[str]:
        """The default first."""
        return [self._default, *(name for name in self._upstreams if name != self._default)]


OPENAI_DEFAULT = "gpt-5-mini"
"""For a server that lists no models and has no default of its own in the configuration."""
