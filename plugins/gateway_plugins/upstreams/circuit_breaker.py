"""Counts the calls and failures of one upstream, and opens a circuit breaker after failures."""

import time
from collections import Counter

import openai
from attrs import define, field

COOLDOWN_SECONDS = 10.0
"""Time in seconds for which an unreachable or overloaded upstream is skipped if another one is available."""
MAX_COOLDOWN_SECONDS = 20.0
"""Upper limit for the `Retry-After` of an upstream, in seconds."""

KINDS = ("connection", "timeout", "429", "4xx", "5xx", "stream")
"""Kinds of failures. `stream` is an interrupted or malformed stream."""

_BUSY = (429, 502, 503, 504)
_TRANSIENT = (408, 409, *_BUSY)


@define
class CircuitBreaker:
    """The call counters and the circuit breaker of one upstream."""

    calls: int = 0
    failed: Counter[str] = field(factory=Counter)
    """Number of failed calls by kind."""
    failed_over: int = 0
    """Number of calls that failed over to another upstream."""
    _open_until: float = 0.0

    def failure(self, error: openai.OpenAIError) -> None:
        """Count a failed call."""
        self.failed[_kind(error)] += 1

    def trip(self, error: openai.OpenAIError) -> float:
        """Open the circuit breaker after a failure that is likely to repeat.

        Returns:
            The time in seconds for which it is open; 0 if the failure does not open it.
        """
        seconds = _cooldown(error)
        if seconds:
            self._open_until = time.monotonic() + seconds
        return seconds

    @property
    def is_open(self) -> bool:
        """Whether other upstreams should be preferred."""
        return time.monotonic() < self._open_until


def is_transient_failure(error: openai.OpenAIError) -> bool:
    """Whether the same call may succeed elsewhere, because the request itself is not the cause."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in _TRANSIENT or error.status_code >= 500
    return isinstance(error, openai.APIError)


def _kind(error: openai.OpenAIError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    if isinstance(error, openai.APIStatusError):
        return "429" if error.status_code == 429 else f"{error.status_code // 100}xx"
    return "stream"


def _cooldown(error: openai.OpenAIError) -> float:
    if isinstance(error, openai.APIConnectionError):
        return COOLDOWN_SECONDS
    if not isinstance(error, openai.APIStatusError) or error.status_code not in _BUSY:
        return 0.0
    try:
        requested = float(error.response.headers.get("retry-after", COOLDOWN_SECONDS))
    except ValueError:  # a date
        requested = COOLDOWN_SECONDS
    return max(0.0, min(requested, MAX_COOLDOWN_SECONDS))
