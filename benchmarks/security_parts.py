"""What overrides, limits and the audit log cost a request: `python benchmarks/security_parts.py`.

Microseconds, the median of seven rounds.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway_plugins.security.audit_log import AuditLog
from gateway_plugins.security.grants import Grant
from gateway_plugins.security.limits import Limits
from gateway_plugins.security.overrides import OverrideStore
from gateway_plugins.security.questions import Question
from gateway_plugins.security.settings import AuditSettings, LimitSettings, OverrideSettings

from gateway_core import Decision, DecisionMade, Principal

MADE = DecisionMade("req_1", Principal("ann"), "agent", "labs/Research", Decision(True, "key", "labs/*"), 0.00004)
ASKED = Question("agent", "labs/Research", "ann", key="agw_ab12cd34", namespace="labs")
MANY = 10**9


async def measure(name: str, times: int, once: Callable[[], Awaitable[None]]) -> None:
    """Print what one call takes."""
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(times):
            await once()
        rounds.append((time.perf_counter() - began) / times * 1e6)
        await asyncio.sleep(0.05)
    print(f"{name:60} {statistics.median(rounds):8.1f}")


async def main() -> None:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with AuditLog(AuditSettings(), Path(folder), print) as log:

            async def record() -> None:
                log.decision(MADE, key="agw_ab12cd34")

            async def change() -> None:
                log.event("change", admin=True)
                await log.settled()

            await measure("a decision recorded", 500, record)
            await measure("a change recorded, and on the disk", 50, change)
    async with OverrideStore(OverrideSettings(), None, lambda _: None) as store:

        async def ask() -> None:
            store.deciding(ASKED)

        await measure("overrides asked, none in force", 5000, ask)
        for number in range(1000):
            await store.grant(Grant("agent", "labs/Other", f"somebody-{number % 500}", "r"), "root")
        await measure("overrides asked, 1,000 in force for others", 5000, ask)
    settings = LimitSettings(MANY, MANY, MANY, MANY, MANY, MANY, MANY)
    async with Limits(settings, None, print) as limits:

        async def run() -> None:
            async with limits.admission("ann", "labs/Research"):
                pass

        await measure("a run admitted, all seven limits set", 1000, run)


if __name__ == "__main__":
    asyncio.run(main())
