"""Fuzzes the routes in `/openapi.json` with all checks: no 500, no response that it does not describe, valid requests
are accepted, and invalid ones are rejected.

The environment variable `EXAMPLES` sets the number of generated requests per route; the default is small.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import serving

EXAMPLES = os.environ.get("EXAMPLES", "5")
AGENT = "async def run(messages):\n    return f'you said {messages[-1]}'\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    (folder / "agents").mkdir()
    (folder / "agents" / "Echo.py").write_text(AGENT)
    (folder / "gateway.toml").write_text("[plugins.entry_point_discovery]\nenabled = false\n")
    with serving(folder, "--offline") as running:
        assert "models     Echo" in running.text
        yield running


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_input_causes_an_undocumented_response(server, seed, tmp_path):
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", str(seed)),
            *("--generation-database", "none", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
