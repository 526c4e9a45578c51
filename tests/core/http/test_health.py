"""`/readyz` reports the plugins' checks, and fails only if a required check fails."""

import pytest

from gateway_core import Check, hookimpl
from gateway_core.testing import gateway_in_memory


def checking(*checks):
    class Checking:
        def __init__(self, *_):
            pass

        @hookimpl
        async def readiness(self):
            if not checks:
                raise OSError("canary")
            return checks

    return {"checking": Checking}


@pytest.mark.parametrize(
    ("checks", "status", "body"),
    [
        ([Check("a", ok=True)], 200, "ready\ncatalog: ok\na: ok\n"),
        ([Check("a", ok=True), Check("b", ok=False)], 503, "not ready\ncatalog: ok\na: ok\nb: failed\n"),
        ([Check("a", ok=False, needed=False)], 200, "ready\ncatalog: ok\na: failed (optional)\n"),
        ([], 200, "ready\ncatalog: ok\nchecking: failed (optional)\n"),
    ],
)
async def test_readiness_depends_on_required_checks(checks, status, body):
    async with gateway_in_memory({}, plugins=checking(*checks)) as g:
        answer = await g.http.get("/readyz")
        assert (answer.status_code, answer.text) == (status, body)
        assert answer.headers.get("retry-after") == (None if status == 200 else "1")
        assert (await g.http.get("/healthz")).text == "ok\n"
