"""The sandbox clients of the SDK: their classes, packages and options. Importing this module imports no client."""

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from attrs import frozen

from gateway_core.errors import ConfigError

TABLE = "[runs.sandbox]"
LOCAL = "local"
CURE = (
    "run `pip install 'openai-agents[docker]'`, and add these lines to gateway.toml:\n"
    f'{TABLE}\nclient = "docker"\noptions = {{ image = "python:3.12-slim" }}\n'
)
"""The configuration of a sandbox for an operator who has none."""


@frozen
class _Client:
    module: str
    name: str
    """The prefix of its classes."""
    package: str | None = None
    """The module that its extra installs; `None` if it needs no extra."""
    blocking: bool = False
    """Whether its coroutine functions block the event loop, such as until an image is pulled or a container stops."""


_CLIENTS = {
    "docker": _Client("agents.sandbox.sandboxes.docker", "Docker", "docker", blocking=True),
    LOCAL: _Client("agents.sandbox.sandboxes.unix_local", "UnixLocal"),
    **{
        extra: _Client(f"agents.extensions.sandbox.{extra}", name, package)
        for extra, name, package in (
            ("blaxel", "Blaxel", "blaxel"),
            ("cloudflare", "Cloudflare", "aiohttp"),
            ("daytona", "Daytona", "daytona"),
            ("e2b", "E2B", "e2b"),
            ("modal", "Modal", "modal"),
            ("runloop", "Runloop", "runloop_api_client"),
            ("vercel", "Vercel", "vercel"),
        )
    },
}
# Values of the options that a client requires.
_EXAMPLES = {
    "image": "python:3.12-slim",
    "sandbox_type": "e2b",
    "app_name": "agent-gateway",
    "worker_url": "https://sandbox.example.com",
}


def check_client(name: str, options: Mapping[str, Any]) -> None:
    """Check that a client is installed, and that its options are valid.

    Raises:
        ConfigError: The client's package is missing, or an option is unknown, missing or of the wrong type. Its source
            is the key in the table.
    """
    client = _CLIENTS[name]
    install = f"run: pip install 'openai-agents[{name}]'"
    if client.package is not None and find_spec(client.package) is None:
        raise ConfigError(f'the package of "{name}" is not installed', source="client", hint=install)
    try:
        importlib.import_module(client.module)
    except ImportError as error:
        hint = install if client.package else "it requires Linux or macOS"
        raise ConfigError(f'"{name}" cannot be imported: {error}', source="client", hint=hint) from error
    options_of(name, options)


def options_of(name: str, options: Mapping[str, Any]) -> Any:
    """Return the options as an instance of the client's class.

    Raises:
        ConfigError: An option is unknown, missing or of the wrong type.
    """
    from pydantic import ValidationError

    cls = _class_of(name, "ClientOptions")
    fields = {key: field for key, field in cls.model_fields.items() if key != "type"}
    for key in options:
        if key not in fields:
            known = f"known names: {', '.join(fields)}"
            raise ConfigError(f'unknown option of "{name}"', source=f"options.{key}", hint=known)
    for key, field in fields.items():
        if field.is_required() and key not in options:
            hint = f'add: options = {{ {key} = "{_EXAMPLES[key]}" }}' if key in _EXAMPLES else None
            raise ConfigError(f'"{name}" requires the option {key}', source="client", hint=hint)
    try:
        return cls.model_validate({"type": cls.model_fields["type"].default, **options})
    except ValidationError as error:
        # Without the value, which may be a secret.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(["options", *map(str, first["loc"])])
        raise ConfigError(first["msg"], source=place) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error), source="options") from error


def is_blocking(name: str) -> bool:
    """Whether the coroutine functions of a client block the event loop."""
    return _CLIENTS[name].blocking


def backend_of(name: str) -> str:
    """Return the SDK's id of a client's backend."""
    backend: str = _class_of(name, "Client").backend_id
    return backend


def state_of(name: str, payload: dict[str, object]) -> Any:
    """Return the `SandboxSessionState` of a client's session from JSON. It needs no connection."""
    cls = _class_of(name, "Client")
    return cls.deserialize_session_state(cls.__new__(cls), payload)


def create_client(name: str) -> Any:
    """Create a `BaseSandboxClient`. Blocking: it may connect to a server."""
    cls = _class_of(name, "Client")
    if name == LOCAL:
        # The environment of the gateway contains its secrets.
        return cls(inherit_host_environment=False)
    if name == "docker":
        return cls(importlib.import_module("docker").from_env())
    return cls()


def _class_of(name: str, kind: str) -> Any:
    client = _CLIENTS[name]
    return getattr(importlib.import_module(client.module), f"{client.name}Sandbox{kind}")
