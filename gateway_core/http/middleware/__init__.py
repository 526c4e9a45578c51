"""ASGI middleware of the core: request context, errors and request framing."""
