"""Parses and validates the body of `POST /v1/chat/completions`.

`docs/reference/chat-completions.md` documents the handling of each field. Fields that the agent determines (its tools)
are ignored, fields that the gateway cannot honor are rejected, and unknown fields are ignored.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.agent_request import AgentRequest
from gateway_core.http.answer_format import parse_answer_format
from gateway_core.http.chat.messages import parse_messages
from gateway_core.http.chat.stored import ToStore
from gateway_core.http.client_tools import FIELDS
from gateway_core.http.content_parts import check_parts


@frozen(kw_only=True)
class ChatRequest(AgentRequest):
    """A parsed chat request."""

    include_usage: bool
    to_store: ToStore | None
    """The content to store with the completion, for a request with `store`."""


def parse_chat_request(body: Mapping[str, Any], limits: HttpConfig) -> ChatRequest:
    """Parses a request body.

    Raises:
        InvalidRequestError: A field is missing, has the wrong type, is out of range or is not supported.
    """
    model = json_fields.required_text(body, "model")
    messages = json_fields.listing(body, "messages")
    if not messages:
        raise InvalidRequestError("'messages' is required and must be a non-empty array", param="messages")
    json_fields.check_length(messages, "messages", limits.max_messages)
    check_parts(messages, "messages", limits.max_parts)
    json_fields.check_length(json_fields.listing(body, "tools") or (), "tools", limits.max_tools)
    _reject_unsupported(body)
    options = json_fields.mapping(body, "stream_options") or {}
    conversation = parse_messages(messages)
    store = json_fields.boolean(body, "store")
    return ChatRequest(
        model=model,
        items=conversation.items,
        given=messages,
        text=conversation.text,
        system=conversation.system,
        stream=json_fields.boolean(body, "stream") or False,
        include_usage=json_fields.boolean(options, "include_usage", "stream_options.") or False,
        to_store=ToStore(json_fields.string_map(body, "metadata") or {}, messages) if store else None,
        settings=_settings(body),
        metadata=json_fields.mapping(body, "metadata") or {},
        tool_fields={name: body[name] for name in FIELDS if name in body},
        answer_format=parse_answer_format(json_fields.mapping(body, "response_format"), "response_format", nested=True),
    )


def _reject_unsupported(body: Mapping[str, Any]) -> None:
    if (json_fields.integer(body, "n", low=1) or 1) > 1:
        raise InvalidRequestError("'n' must be 1: an agent returns one choice", param="n")
    json_fields.boolean(body, "logprobs")
    if "audio" in (json_fields.listing(body, "modalities") or ()):
        raise InvalidRequestError("'modalities' must be [\"text\"]: audio output is not supported", param="modalities")


def _settings(body: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        "temperature": json_fields.number(body, "temperature", low=0, high=2),
        "top_p": json_fields.number(body, "top_p", low=0, high=1),
        "frequency_penalty": json_fields.number(body, "frequency_penalty", low=-2, high=2),
        "presence_penalty": json_fields.number(body, "presence_penalty", low=-2, high=2),
        # A limit of 0 counts as unset.
        "max_tokens": json_fields.integer(body, "max_completion_tokens", low=0)
        or json_fields.integer(body, "max_tokens", low=0)
        or None,
        "verbosity": json_fields.one_of(body, "verbosity", json_fields.VERBOSITIES),
        "reasoning_effort": json_fields.effort(body, "reasoning_effort"),
        "seed": json_fields.integer(body, "seed", low=-(2**63), high=2**63 - 1),
        "stop": _stop(body),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _stop(body: Mapping[str, Any]) -> list[str] | None:
    stop = body.get("stop")
    if stop is None:
        return None
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise json_fields.wrong_type("stop", "a string or an array of strings", stop)
    return stops or None
