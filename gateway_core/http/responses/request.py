"""Parses and validates the body of `POST /v1/responses`.

`docs/reference/responses.md` documents the handling of each field. Fields that the agent determines are ignored, fields
that would change the output but are unsupported are rejected, and unknown fields are ignored.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.agent_request import AgentRequest
from gateway_core.http.answer_format import parse_answer_format
from gateway_core.http.client_tools import FIELDS
from gateway_core.http.content_parts import last_user_text
from gateway_core.http.responses.input_items import ApprovalAnswer, parse_input
from gateway_core.types import AnswerFormat

# These would change the output, and no agent supports them.
_UNSUPPORTED = ("conversation", "prompt", "context_management")


@frozen(kw_only=True)
class ResponsesRequest(AgentRequest):
    """A parsed request. `given` contains the items with ids, as they are listed and stored."""

    approvals: tuple[ApprovalAnswer, ...]
    background: bool
    """Whether the response runs in the background and is fetched later."""
    store: bool | None
    previous_response_id: str | None
    echo: Mapping[str, Any]
    """Request fields that the response repeats."""


def parse_responses_request(body: Mapping[str, Any], limits: HttpConfig) -> ResponsesRequest:
    """Parses a request body.

    Raises:
        InvalidRequestError: A field is missing, has the wrong type, is out of range or is not supported.
    """
    model = json_fields.required_text(body, "model")
    for name in _UNSUPPORTED:
        if body.get(name):
            raise InvalidRequestError(f"'{name}' is not supported", param=name, code="unsupported")
    background = json_fields.boolean(body, "background") or False
    if background and json_fields.boolean(body, "store") is False:
        raise InvalidRequestError("'background' requires 'store': the response is fetched later", param="store")
    reasoning = json_fields.mapping(body, "reasoning") or {}
    text = json_fields.mapping(body, "text") or {}
    answer_format = parse_answer_format(json_fields.mapping(text, "format", "text."), "text.format", nested=False)
    json_fields.check_length(json_fields.listing(body, "tools") or (), "tools", limits.max_tools)
    parsed = parse_input(body.get("input"), limits)
    instructions = json_fields.text(body, "instructions")
    json_fields.integer(body, "max_tool_calls", low=1)
    return ResponsesRequest(
        model=model,
        items=parsed.items,
        given=parsed.given,
        text=last_user_text(parsed.items),
        system="\n\n".join(filter(None, [instructions, parsed.system])) or None,
        approvals=parsed.approvals,
        stream=json_fields.boolean(body, "stream") or False,
        background=background,
        store=json_fields.boolean(body, "store"),
        previous_response_id=json_fields.text(body, "previous_response_id"),
        settings=_settings(body, reasoning, text),
        metadata=json_fields.mapping(body, "metadata") or {},
        tool_fields={name: body[name] for name in FIELDS if name in body},
        answer_format=answer_format,
        echo={
            "background": background,
            "frequency_penalty": json_fields.number(body, "frequency_penalty", low=-2, high=2) or 0,
            "instructions": instructions,
            "max_output_tokens": json_fields.integer(body, "max_output_tokens", low=0),
            "max_tool_calls": None,  # the request's limit is ignored
            "metadata": json_fields.string_map(body, "metadata") or {},
            "presence_penalty": json_fields.number(body, "presence_penalty", low=-2, high=2) or 0,
            "previous_response_id": json_fields.text(body, "previous_response_id"),
            "prompt_cache_key": json_fields.text(body, "prompt_cache_key"),
            "reasoning": {"effort": reasoning.get("effort"), "summary": None},
            "safety_identifier": json_fields.text(body, "safety_identifier"),
            "temperature": json_fields.number(body, "temperature", low=0, high=2),
            "text": _text(text, answer_format),
            "top_p": json_fields.number(body, "top_p", low=0, high=1),
            "user": json_fields.text(body, "user"),
        },
    )


def _text(text: Mapping[str, Any], answer_format: AnswerFormat | None) -> dict[str, Any]:
    shown = dict(text.get("format") or {"type": "text"})
    if shown["type"] == "json_schema" and answer_format is not None:
        shown["name"] = answer_format.name
    verbosity = text.get("verbosity")
    return {"format": shown} | ({"verbosity": verbosity} if verbosity else {})


def _settings(body: Mapping[str, Any], reasoning: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        "temperature": json_fields.number(body, "temperature", low=0, high=2),
        "top_p": json_fields.number(body, "top_p", low=0, high=1),
        "frequency_penalty": json_fields.number(body, "frequency_penalty", low=-2, high=2),
        "presence_penalty": json_fields.number(body, "presence_penalty", low=-2, high=2),
        "max_tokens": json_fields.integer(body, "max_output_tokens", low=0) or None,
        "verbosity": json_fields.one_of(text, "verbosity", json_fields.VERBOSITIES, "text."),
        "reasoning_effort": json_fields.effort(reasoning, "effort", "reasoning."),
    }
    return {name: value for name, value in settings.items() if value is not None}
