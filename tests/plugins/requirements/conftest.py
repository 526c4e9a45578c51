"""The real uv, with a folder of wheels for a package index, and a virtual environment to install into."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import uv

AGENT = "from agents import Agent\nagent = Agent(name='x')\n"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """The folder of wheels that uv installs from. Nothing else is available: no index, no cache, no settings."""
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "wheels"
    folder.mkdir()
    settings = tmp_path / "settings" / "uv.toml"
    settings.parent.mkdir()
    settings.write_text(f"no-index = true\nfind-links = ['{folder}']\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def environment(wheels, tmp_path, monkeypatch):
    """A virtual environment that appears to be the running one: it lists what is installed here."""
    place = tmp_path / "venv"
    command = [uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(place)]
    subprocess.run(command, check=True)
    [site] = place.glob("lib/python*/site-packages")
    for found in distributions():
        info = Path(found._path)
        if info.suffix == ".dist-info" and not (site / info.name).exists():
            (site / info.name).mkdir()
            shutil.copy(info / "METADATA", site / info.name)
    monkeypatch.setattr(sys, "executable", str(place / "bin" / "python"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    return site


@pytest.fixture
def no_process(monkeypatch):
    """No process may be started."""

    def refuse(*_, **__):
        raise AssertionError("nothing may be started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture
def agents(tmp_path):
    """Makes agents in a drop-in folder: their names, with `__` for `/`, and their requirements files."""
    root = tmp_path / "agents"

    def make(**files):
        for name, requirements in files.items():
            folder = root / name.replace("__", "/")
            folder.mkdir(parents=True)
            (folder / "agent.py").write_text(AGENT)
            if requirements is not None:
                (folder / "requirements.txt").write_text(requirements)
        return root

    return make
