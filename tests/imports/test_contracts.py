"""Each import contract goes red on the import that it forbids, planted in a copy of the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECK = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
TYPE_CHECKING = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}\n"


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages and of the contracts."""
    ignored = shutil.ignore_patterns("__pycache__", "templates")
    shutil.copytree(ROOT / "gateway_core", tmp_path / "gateway_core", ignore=ignored)
    shutil.copytree(ROOT / "plugins" / "gateway_plugins", tmp_path / "gateway_plugins", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_code_keeps_every_contract(copy):
    status, output = lint(copy)
    assert status == 0, output
    assert "0 broken" in output


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("gateway_core/errors.py", "\nimport gateway_core.types\n", "Core layers"),
        ("gateway_core/runs/engine.py", TYPE_CHECKING.format("gateway_core.http.models"), "Core layers"),
        ("gateway_core/unlayered.py", "\n", "Core layers"),
        ("gateway_core/runs/event_channel.py", TYPE_CHECKING.format("gateway_core.runs.engine"), "No import circles"),
        (
            "gateway_plugins/error_recorder/ring_buffer.py",
            "\nimport gateway_plugins.error_recorder.routes\n",
            "No import circles",
        ),
        ("gateway_core/gateway.py", "\nimport gateway_plugins.sessions\n", "The core imports no plugin"),
        ("gateway_plugins/sessions/records.py", "\nimport gateway_plugins.metrics\n", "No plugin imports another"),
        ("gateway_plugins/sessions/records.py", "\nimport gateway_core.types\n", "Plugins import only"),
        (
            "gateway_plugins/sessions/records.py",
            TYPE_CHECKING.format("gateway_core.observability.log_context"),
            "Plugins import only",
        ),
        ("gateway_core/types.py", "\nimport agents\n", "does not import the SDK"),
        ("gateway_core/catalog/module_isolation.py", "\nimport agents\n", "does not import the SDK"),
        ("gateway_core/tools/patterns.py", "\nimport gateway_core.sdk.patches\n", "does not import the SDK"),
        ("gateway_core/http/models.py", "\nimport openai\n", "does not use the SDK"),
        ("gateway_plugins/sessions/records.py", "\nimport pluggy\n", "uses pluggy"),
        ("gateway_core/app.py", "\nimport hypercorn\n", "uses Hypercorn"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(copy, file, line, broken):
    with (copy / file).open("a") as target:
        target.write(line)
    status, output = lint(copy)
    assert status != 0
    verdicts = [line for line in output.splitlines() if " BROKEN" in line]
    assert any(broken in verdict for verdict in verdicts), output
