"""Which upstreams answer? Found out when somebody asks, and remembered for a while: nothing is sent while nobody does.

An answer of any kind counts, also one that refuses the key: the way there works. It routes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai
from attrs import define

from gateway_plugins.upstreams.client import UpstreamClient

ANSWER_SECONDS = 2.0
GOOD_SECONDS = 10.0
"""For so long an answer is remembered."""
BAD_SECONDS = 2.0
"""For so long it is remembered that there was none."""


@define
class Answer:
    """What became of asking an upstream for its models."""

    reachable: bool
    problem: str | None
    """What kind of error it was, if it was one."""
    asked_at: float
    """Seconds since the epoch."""


class UpstreamHealth:
    """Asks the upstreams.

    Args:
        clients: Those of the upstreams, by name.
        listed: Told which models an upstream has, when it says so.
    """

    def __init__(
        self, clients: Mapping[str, UpstreamClient], listed: Callable[[str, Sequence[str]], None] = lambda *_: None
    ) -> None:
        self._clients = clients
        self._listed = listed
        self._asking: asyncio.Task[None] | None = None
        self.answers: dict[str, Answer] = {}
        """The last ones, by the upstream's name."""

    async def any_reachable(self) -> bool:
        """Whether one answers, or did a moment ago. Waits only the first time."""
        if self._asking is None and self._stale():
            self._asking = asyncio.create_task(self.ask())
            self._asking.add_done_callback(self._asked)
        if not self.answers and self._asking is not None:
            # Whoever asks may leave; the answer is for the next one, too.
            await asyncio.wait([self._asking])
        return any(answer.reachable for answer in self.answers.values())

    async def ask(self) -> None:
        """Ask all of them, now."""
        await asyncio.gather(*(self._ask(name, client) for name, client in self._clients.items()))

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def describe(self, name: str) -> dict[str, Any]:
        """What is known of one, for operators."""
        answer = self.answers.get(name)
        if answer is None:
            return {"reachable": None, "problem": None, "asked_at": None}
        return {"reachable": answer.reachable, "problem": answer.problem, "asked_at": answer.asked_at}

    def _stale(self) -> bool:
        if not self.answers:
            return True
        good = any(answer.reachable for answer in self.answers.values())
        age = time.time() - min(answer.asked_at for answer in self.answers.values())
        # A clock that was set back must not keep an old answer for ever.
        return not 0 <= age < (GOOD_SECONDS if good else BAD_SECONDS)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()

    async def _ask(self, name: str, client: UpstreamClient) -> None:
        problem: str | None = None
        reachable = True
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                models = [model.id async for model in client.with_options(max_retries=0).models.list()]
            self._listed(name, models)
        except openai.APIStatusError as error:
            problem, reachable = f"HTTP {error.status_code}", error.status_code < 500
        except (openai.OpenAIError, TimeoutError) as error:
            problem, reachable = type(error).__name__, False
        except Exception as error:  # it answered, with something else than a list of models
            problem = type(error).__name__
        self.answers[name] = Answer(reachable, problem, time.time())
