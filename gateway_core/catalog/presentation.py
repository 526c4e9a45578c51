"""Reads the settings in a module's `__gateway__` that describe the agent to chat UIs, such as its icon and prompts.

The result is the metadata that Open WebUI reads in `/v1/models`. https://docs.openwebui.com/
"""

from collections.abc import Callable, Mapping
from typing import Any

from gateway_core.config.values import did_you_mean
from gateway_core.errors import LoadError

Json = dict[str, Any]

KNOWN = (
    "capabilities",
    "client_tools",
    "description",
    "display_name",
    "icon",
    "memory",
    "model",
    "prompts",
    "tags",
)
"""The names in `__gateway__`."""
CAPABILITIES = (
    "builtin_tools",
    "citations",
    "code_interpreter",
    "file_context",
    "file_upload",
    "image_generation",
    "memory",
    "status_updates",
    "terminal",
    "usage",
    "vision",
    "web_search",
)
"""The capabilities that Open WebUI knows; it assumes those that are not set."""
_ICONS = ("https://", "http://", "data:image/")
_MAX_ICON = 256 * 1024
"""Maximum number of characters: `/v1/models` contains the icon of every agent."""


def presentation(settings: Mapping[str, Any], source: str) -> Json:
    """Returns the metadata for chat UIs.

    Args:
        settings: The module's `__gateway__`.
        source: The location of the module, for errors.

    Raises:
        LoadError: A setting has the wrong type or form.
    """
    readers: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
        "icon": ("profile_image_url", _icon),
        "prompts": ("suggestion_prompts", _prompts),
        "tags": ("tags", _tags),
        "capabilities": ("capabilities", _capabilities),
    }
    found = {}
    try:
        for name in ("display_name", "description"):
            if settings.get(name) is not None:
                _text(settings[name], name)
        for name, (field, read) in readers.items():
            if settings.get(name) is not None:
                found[field] = read(settings[name])
    except _InvalidError as error:
        raise LoadError(f"`__gateway__`: {error}", source=source, hint=error.hint, code="export") from None
    return found


def unknown_settings(settings: Mapping[str, Any]) -> list[str]:
    """Returns warnings about names that have no effect."""
    unknown = [
        f"`__gateway__` has the unknown key {name!r}, which has no effect; {did_you_mean(str(name), KNOWN)}"
        for name in settings
        if name not in KNOWN
    ]
    capabilities = settings.get("capabilities") or {}
    return unknown + [
        f'`__gateway__["capabilities"]` has the unknown name {name!r}; {did_you_mean(str(name), CAPABILITIES)}'
        for name in capabilities
        if name not in CAPABILITIES
    ]


class _InvalidError(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _InvalidError(f"`{name}` must be a non-empty string, not {_shown(value)}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _InvalidError(f"`{name}` must be a list, not {_shown(value)}", f"write [{value!r:.60}]")
    return [*value]


def _icon(value: Any) -> str:
    icon = _text(value, "icon")
    if not icon.startswith(_ICONS):
        hint = 'use a URL ("https://…"), or the image itself ("data:image/png;base64,…")'
        raise _InvalidError(f"`icon` must be the URL of an image, not {_shown(value)}", hint)
    if len(icon) > _MAX_ICON:
        raise _InvalidError(f"`icon` is longer than {_MAX_ICON // 1024} KiB", "use a smaller image, or a URL")
    return icon


def _prompts(value: Any) -> list[Json]:
    return [_prompt(prompt, f"prompts[{place}]") for place, prompt in enumerate(_list(value, "prompts"))]


def _prompt(value: Any, path: str) -> Json:
    """Returns a suggested prompt. Its title has two lines in the UI."""
    if not isinstance(value, Mapping):
        return {"content": _text(value, path), "title": [value, ""]}
    if unknown := [name for name in value if name not in ("content", "title")]:
        raise _InvalidError(f"`{path}` has the unknown key {unknown[0]!r}", 'supported keys: "content", "title"')
    content = _text(value.get("content"), f"{path}.content")
    title = value.get("title") or content
    lines = [title] if isinstance(title, str) else _list(title, f"{path}.title")
    if len(lines) > 2:
        raise _InvalidError(f"`{path}.title` has {len(lines)} lines", "use one or two")
    shown = [each if each == "" else _text(each, f"{path}.title") for each in lines]
    return {"content": content, "title": [*shown, ""][:2]}


def _tags(value: Any) -> list[Json]:
    return [{"name": _text(tag, f"tags[{place}]")} for place, tag in enumerate(_list(value, "tags"))]


def _capabilities(value: Any) -> dict[str, bool]:
    if not isinstance(value, Mapping):
        hint = 'such as {"vision": False, "file_upload": True}'
        raise _InvalidError(f"`capabilities` must be a dict, not {_shown(value)}", hint)
    for name, enabled in value.items():
        if not isinstance(enabled, bool):
            raise _InvalidError(f"`capabilities[{name!r}]` must be True or False, not {_shown(enabled)}")
    return {str(name): enabled for name, enabled in value.items()}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
