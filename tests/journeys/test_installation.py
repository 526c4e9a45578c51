"""The commands of the page on the installation that need no installation before them."""

import shutil
from pathlib import Path

import pytest
import uv

from tests.journeys.terminal import ROOT, Page, Terminal, step

PAGE = Page("docs/guides/installation.md")
SECONDS = 300.0

pytestmark = pytest.mark.timeout(1200)


def checkout(tmp_path: Path) -> Path:
    """A copy of the repository without what is not part of it."""
    ignored = shutil.ignore_patterns(
        ".git", ".nox", "*.egg-info", "__pycache__", ".agent-gateway", "dist", "node_modules"
    )
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored))


def test_uvx_serves_without_an_installation(tmp_path):
    terminal = Terminal(checkout(tmp_path), environment=environment())
    with terminal, step("uvx from the checkout, until it serves"):
        serve(terminal, PAGE.command("uvx --from . "))


def test_uvx_serves_from_wheels(tmp_path):
    with Terminal(checkout(tmp_path), environment=environment()) as terminal:
        with step("build the wheels"):
            for command in PAGE.commands("uv build"):
                terminal.run(command, seconds=SECONDS)
        with step("uvx from the wheels, until it serves"):
            serve(terminal, PAGE.command("uvx --from dist/"))


def environment() -> dict[str, str]:
    """The port of the page may be in use; `uv` is the one of this environment."""
    assert Path(uv.find_uv_bin()).exists()
    return {"GATEWAY__SERVER__PORT": "0", "GATEWAY__PLUGINS__UPSTREAMS__PROBE": "false"}


def serve(terminal: Terminal, command: str) -> None:
    terminal.start(command)
    terminal.expect(r"^  models .*SampleAgent", seconds=SECONDS)
    terminal.expect(r"Press Ctrl\+C to stop")
    terminal.interrupt()
    assert terminal.end()[0] == 0
