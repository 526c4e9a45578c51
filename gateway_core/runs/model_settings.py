"""Adapts the settings of a model call to the model that is really called.

The SDK chooses default settings by the name that an agent gives, and an author chooses settings for that model. The
model that is called may be another one: the operator's, an upstream's default, a fallback, or the one of a run's
configuration. OpenAI's other models and many servers reject a call with settings that they do not know.
"""

import dataclasses
import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

from agents import ModelSettings
from agents.models import get_default_model_settings
from agents.models.default_models import get_default_model

from gateway_core.runs.run_scope import POSITION

logger = logging.getLogger(__name__)

# Names without their path. The first generation of small models and the models of ChatGPT have no reasoning effort.
_REASONS = re.compile(r"(gpt-?[5-9](?!\d)|o[1-9](?!\d)|gpt-?oss|codex)", re.IGNORECASE)
_NO_EFFORT = re.compile(r"o1-(mini|preview)|.*-chat(-|$)", re.IGNORECASE)
_VERBOSE = re.compile(r"gpt-?[5-9](?!\d)(?!.*-chat(-|$))", re.IGNORECASE)
# Reasoning models of OpenAI accept these only without reasoning.
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs")
_OPEN_WEIGHTS = re.compile(r"gpt-?oss", re.IGNORECASE)
_ENCRYPTED = "reasoning.encrypted_content"
_RAW = {"reasoning_effort": "reasoning", "reasoning": "reasoning", "verbosity": "verbosity"}
"""The keys of `extra_args` and `extra_body` that set reasoning and verbosity."""


def settings_for(settings: ModelSettings, model: str) -> ModelSettings:
    """Return the settings of a model call without those that are meant for another model.

    Settings of the request, and those for the called model, are kept. The SDK's default settings become those for the
    called model. Of the author's settings for a model that was replaced, the called model gets only those it accepts.

    Args:
        settings: The settings of the call.
        model: The name of the called model at its server.
    """
    adapted = _Adaption(settings, model.rpartition("/")[2] or model, model)
    changes = dict(adapted.changes())
    if adapted.dropped:
        _log_dropped(adapted.agent_id, model, ", ".join(dict.fromkeys(adapted.dropped)))
    return dataclasses.replace(settings, **changes) if changes else settings


def default_settings(model: str | None) -> ModelSettings:
    """Return the SDK's default settings for a model name, or for an agent without one. Do not modify them."""
    return _default_settings(model if model is not None else get_default_model())


@functools.lru_cache(maxsize=256)
def _default_settings(model: str) -> ModelSettings:
    return get_default_model_settings(model)


class _Adaption:
    """One call: compares its settings with those of its agent and of the request.

    Args:
        settings: The settings of the call.
        model: The name of the called model, without its path.
        full_name: The name of the called model at its server.
    """

    def __init__(self, settings: ModelSettings, model: str, full_name: str) -> None:
        position = POSITION.get()
        agent = position.agent if position is not None else None
        self.agent_id = position.scope.run.agent_id if position is not None else None
        self.dropped: list[str] = []
        self._settings = settings
        self._model = model
        self._full_name = full_name.casefold()
        self._requested = position.scope.settings if position is not None else {}
        self._agents_model = getattr(agent, "model", None)
        self._agents_settings = getattr(agent, "model_settings", None)
        self._runs_model = position.requested_model if position is not None else None

    def changes(self) -> Iterator[tuple[str, Any]]:
        """Yield the settings to change, by name."""
        effort = self._adapted("reasoning")
        for name, value in (("reasoning", effort), ("verbosity", self._adapted("verbosity"))):
            if value is not getattr(self._settings, name):
                yield name, value
        yield from self._raw_changes()
        if _ENCRYPTED in (self._settings.response_include or ()) and not self._keeps("response_include", "reasoning"):
            self.dropped.append("response_include")
            kept = [each for each in self._settings.response_include or () if each != _ENCRYPTED]
            yield "response_include", kept or None
        if self._rejects_sampling(effort):
            for name in _SAMPLING:
                value = getattr(self._settings, name)
                if value is not None and self._requested.get(name) != value and not self._is_for_called(name):
                    self.dropped.append(name)
                    yield name, None

    def _adapted(self, name: str) -> Any:
        value = getattr(self._settings, name)
        if value is None or self._is_requested(name, value):
            return value
        if any(value == getattr(default_settings(each), name) for each in self._names(name)):
            return getattr(default_settings(self._model), name)
        if self._keeps(name, name):
            return value
        self.dropped.append(name)
        return None

    def _raw_changes(self) -> Iterator[tuple[str, Any]]:
        for field in ("extra_args", "extra_body"):
            given = getattr(self._settings, field)
            if not isinstance(given, dict):
                continue
            refused = [name for name, kind in _RAW.items() if name in given and not self._keeps(field, kind)]
            kept = {name: value for name, value in given.items() if name not in refused}
            # The Responses API has the verbosity in an object, next to the format of the answer.
            text = kept.get("text")
            if isinstance(text, dict) and "verbosity" in text and not self._keeps(field, "verbosity"):
                refused.append("text.verbosity")
                kept["text"] = {name: value for name, value in text.items() if name != "verbosity"}
                if not kept["text"]:
                    del kept["text"]
            if refused:
                self.dropped += refused
                yield field, kept or None

    def _is_requested(self, name: str, value: Any) -> bool:
        if name == "reasoning":
            return bool(value.effort) and self._requested.get("reasoning_effort") == value.effort
        return bool(self._requested.get(name) == value)

    def _names(self, setting: str) -> list[str | None]:
        """Return the names of the models that a setting may be meant for; `None` is the SDK's default model."""
        own = getattr(self._agents_settings, setting, None)
        is_agents = own is not None and own == getattr(self._settings, setting)
        named = [self._agents_model] if is_agents else [self._agents_model, self._runs_model]
        return [each for each in named if each is None or isinstance(each, str)]

    def _is_for_called(self, setting: str) -> bool:
        for name in self._names(setting):
            meant = (name or get_default_model()).casefold()
            if self._full_name in (meant, f"{meant}:latest") or meant.endswith(f"/{self._full_name}"):
                return True
        return False

    def _keeps(self, setting: str, kind: str) -> bool:
        accepts = _VERBOSE.match(self._model) if kind == "verbosity" else self._accepts_effort()
        return bool(accepts) or self._is_for_called(setting)

    def _accepts_effort(self) -> bool:
        return bool(_REASONS.match(self._model)) and not _NO_EFFORT.match(self._model)

    def _rejects_sampling(self, reasoning: Any) -> bool:
        if not self._accepts_effort() or _OPEN_WEIGHTS.match(self._model):
            return False
        default = default_settings(self._model).reasoning
        effort = (reasoning and reasoning.effort) or (default and default.effort)
        return effort != "none"


@functools.lru_cache(maxsize=1024)
def _log_dropped(agent_id: str | None, model: str, names: str) -> None:
    """Log the author's settings that a model does not get, once for each agent and model."""
    logger.warning("agent %s: not sent to the model %s, which its author did not name: %s", agent_id, model, names)
