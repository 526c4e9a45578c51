"""Measures the overhead of keys, rules, overrides, limits and the audit log: `python benchmarks/security.py`.

Results are in microseconds, the median of seven rounds.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway_plugins.security import Security
from gateway_plugins.security.access_query import AccessQuery
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.keys.key_ring import make_key
from gateway_plugins.security.limits.admission import Limits
from gateway_plugins.security.overrides.grant_request import Grant
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import (
    AuditSettings,
    KeySettings,
    LimitSettings,
    OverrideSettings,
    RuleSettings,
    Settings,
)
from starlette.requests import Request

from gateway_core import AgentEntry, Decision, DecisionMade, Principal
from gateway_core.hooks.null_gateway import NullGateway

CALLER = Principal("ann", key="agw_ab12cd34")
MADE = DecisionMade("req_1", CALLER, "agent", "labs/Research", Decision(True, "key", "labs/*"), 0.00004)
ASKED = AccessQuery("agent", "labs/Research", "ann", key="agw_ab12cd34")
MANY = 10**9


async def measure(name: str, times: int, once: Callable[[], Awaitable[None]]) -> None:
    """Measure and print the duration of one call."""
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(times):
            await once()
        rounds.append((time.perf_counter() - began) / times * 1e6)
        await asyncio.sleep(0.05)
    print(f"{name:60} {statistics.median(rounds):8.1f}")


async def keys_and_rules() -> None:
    """Authenticate and authorize with 1,000 keys and 200 rules, of which the last one matches."""
    keys = [make_key() for _ in range(1000)]
    patterns = [f"team{number}/*/agent" for number in range(199)]
    tables = {f"key{number}": KeySettings(key.hash, key.id) for number, key in enumerate(keys)}
    security = Security(NullGateway(), Settings(keys=tables, rules=RuleSettings(agents=[*patterns, "labs/**"])))
    header = f"Bearer {keys[-1].text}".encode()
    request = Request({"type": "http", "headers": [(b"host", b"x"), (b"authorization", header)], "path": "/v1/models"})
    entry = AgentEntry("labs/deep/Research", "x.py", "1", lambda: None)

    async def decide() -> None:
        principal = await security.authenticate(request)
        assert principal is not None
        decision = await security.authorize(principal, entry)
        assert decision is not None
        assert decision.pattern == "labs/**"

    await measure("authenticated and authorized, 1,000 keys, 200 rules", 2000, decide)


async def main() -> None:
    """Run all benchmarks."""
    await keys_and_rules()
    with tempfile.TemporaryDirectory() as folder:
        async with AuditLog(AuditSettings(), Path(folder), print) as log:

            async def record() -> None:
                log.decision(MADE)

            async def change() -> None:
                log.event("change", admin=True)
                await log.settled()

            await measure("a decision recorded", 500, record)
            await measure("a change recorded and flushed to the disk", 50, change)
    async with OverrideManager(OverrideSettings(), None, lambda *_: None) as store:

        async def ask() -> None:
            store.deciding(ASKED)

        await measure("overrides looked up, none active", 5000, ask)
        for number in range(1000):
            await store.grant(Grant("agent", "labs/Other", f"user-{number % 500}", "r"), "root")
        await measure("overrides looked up, 1,000 active for other principals", 5000, ask)
    settings = LimitSettings(MANY, MANY, MANY, MANY, MANY, MANY, MANY)
    async with Limits(settings, None, print) as limits:

        async def run() -> None:
            async with limits.admission("ann", "labs/Research"):
                pass

        await measure("a run admitted, all seven limits set", 1000, run)


if __name__ == "__main__":
    asyncio.run(main())
