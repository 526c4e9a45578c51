"""Maps the finish reasons of model servers to OpenAI's."""

import logging
from typing import Any

from gateway_plugins.upstreams.framing import DialectError

logger = logging.getLogger(__name__)

SEVERITY = {"stop": 0, "function_call": 1, "tool_calls": 1, "length": 2, "content_filter": 3}
"""OpenAI's finish reasons, by severity."""
UNKNOWN = "unknown"
"""Stands for a reason without a known meaning."""

_ORDINARY = frozenset(
    {"stop", "stopped", "eos", "eos_token", "eot", "end", "end_turn", "end_of_turn", "stop_sequence", "stop_token"}
    | {"stop_str", "complete", "completed", "done", "finish", "finished", "normal", "success", "pause_turn"}
)
# The first row that matches counts: `malformed_function_call` is a failure, not a call.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        "error fail abort cancel overload insufficient malformed timeout unexpected rate_limit interrupt unavailable",
        "error",
    ),
    ("length max limit window incomplete truncat budget", "length"),
    (
        "safety filter block prohibit recitation spii refus guardrail sensitive moderation policy language violation",
        "content_filter",
    ),
    ("tool function", "tool_calls"),
)
_MAX_LOGGED = 100
_logged: set[str] = set()


def openai_reason(reason: Any) -> str | None:
    """Return OpenAI's name of a finish reason, `UNKNOWN`, or `None` while the reason is missing.

    Raises:
        DialectError: It means that the answer failed, or is not a name.
    """
    if reason is None or reason is False or reason in ("", "null"):
        return None
    if not isinstance(reason, str):
        raise DialectError("the upstream sent an invalid finish reason")
    name = reason.casefold().replace("-", "_").replace(" ", "_")
    if name in SEVERITY:
        return name
    if name in _ORDINARY:
        return "stop"
    meaning = next((known for words, known in _WORDS if any(word in name for word in words.split())), UNKNOWN)
    if meaning == "error":
        raise DialectError(
            "the upstream reported that the answer failed", {"message": f"finish reason {reason[:40]!r}"}
        )
    if meaning == UNKNOWN and reason not in _logged and len(_logged) < _MAX_LOGGED:
        _logged.add(reason)
        logger.warning("unknown finish reason %r of an upstream; an answer with output counts as complete", reason[:40])
    return meaning
