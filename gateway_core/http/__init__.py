"""The HTTP surface: routes, authentication, request parsing and response serialization."""
