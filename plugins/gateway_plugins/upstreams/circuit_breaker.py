"""What became of the calls of one upstream, and whether it is given a rest. It sends nothing."""

import time
from collections import Counter

import openai
from attrs import define, field

REST_SECONDS = 10.0
"""For so long an upstream that is not there, or has too much to do, is not asked where another one can be."""
LONGEST_REST_SECONDS = 20.0
"""Of what an upstream asks for by `Retry-After`."""

KINDS = ("connection", "timeout", "429", "4xx", "5xx", "stream")
"""Of failures. The last is a stream that broke off, or was none."""

_BUSY = (429, 502, 503, 504)
_IGNORED = (408, 409, *_BUSY)


@define
class CircuitBreaker:
    """The calls of one upstream."""

    made: int = 0
    failed: Counter[str] = field(factory=Counter)
    """How often, by kind."""
    failed_over: int = 0
    """How often another upstream was asked in its place."""
    _rests_until: float = 0.0

    def failure(self, error: openai.OpenAIError) -> None:
        """A call failed."""
        self.failed[_kind(error)] += 1

    def rest_after(self, error: openai.OpenAIError) -> float:
        """Seconds for which it is now given a rest; 0 for a failure that says nothing of the next call."""
        seconds = _rest(error)
        if seconds:
            self._rests_until = time.monotonic() + seconds
        return seconds

    @property
    def rests(self) -> bool:
        """Whether others should be asked first."""
        return time.monotonic() < self._rests_until


def is_passing_failure(error: openai.OpenAIError) -> bool:
    """Whether the same call may do better elsewhere: nothing is wrong with the call itself."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in _IGNORED or error.status_code >= 500
    return isinstance(error, openai.APIError)


def _kind(error: openai.OpenAIError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection"
    if isinstance(error, openai.APIStatusError):
        return "429" if error.status_code == 429 else f"{error.status_code // 100}xx"
    return "stream"


def _rest(error: openai.OpenAIError) -> float:
    if isinstance(error, openai.APIConnectionError):
        return REST_SECONDS
    if not isinstance(error, openai.APIStatusError) or error.status_code not in _BUSY:
        return 0.0
    try:
        asked = float(error.response.headers.get("retry-after", REST_SECONDS))
    except ValueError:  # a date
        asked = REST_SECONDS
    return max(0.0, min(asked, LONGEST_REST_SECONDS))
