"""The diagnosis of a failed import names the cure, and never an unknown distribution."""

import pytest

from gateway_core.catalog import distributions
from gateway_core.catalog.load_errors import diagnose
from gateway_core.catalog.module_isolation import load_isolated
from gateway_core.testing import gateway_in_memory


@pytest.fixture
def failure(tmp_path):
    """Loads an agent that fails, and returns the diagnosis."""

    def load(text, files=(), name="Mine/agent.py"):
        root = tmp_path / "dropped"
        for path, content in {name: text, **dict.fromkeys(files, "x = 1\n")}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        file = root / name
        try:
            load_isolated(file, folder=file.parent if file.name == "agent.py" else None, name="Mine", shared=root)
        except BaseException as error:
            return diagnose(error, str(file))
        raise AssertionError("it was loaded")

    return load


@pytest.mark.parametrize(
    ("statement", "distribution"),
    [
        ("import docx", "python-docx"),
        ("from slugify import slugify", "python-slugify"),
        ("import restate", "restate-sdk"),
        ("from chatkit.server import ChatKitServer", "openai-chatkit"),
        ("import cv2", "opencv-python"),
        ("from PIL import Image", "pillow"),
        ("import sklearn.cluster", "scikit-learn"),
        ("import serial", "pyserial"),
        ("from Crypto.Cipher import AES", "pycryptodome"),
        ("import fitz", "pymupdf"),
        ("import telegram.ext", "python-telegram-bot"),
        ("import discord", "discord.py"),
        ("from google.cloud import storage", "google-cloud-storage"),
        ("import google.cloud.bigquery as bq", "google-cloud-bigquery"),
        ("from google import genai", "google-genai"),
        ("from azure.identity import DefaultAzureCredential", "azure-identity"),
        ("from azure.search.documents import (\n    SearchClient,\n)", "azure-search-documents"),
        ("import pandas as pd", "pandas"),
        ("from exa_py import Exa", "exa-py"),
        ("try:\n    import docx\nexcept ImportError:\n    raise", "python-docx"),
    ],
)
def test_the_distribution_of_a_known_module(failure, statement, distribution):
    error = failure(statement)
    assert (error.code, error.hint) == ("dependency", f"pip install {distribution}")


@pytest.mark.parametrize("statement", ["import docx", "from docx import Document", "from docx.shared import Pt"])
def test_a_folder_with_the_name_of_the_missing_distribution(failure, statement):
    assert failure(statement, name="docx/agent.py").hint == "pip install python-docx"


@pytest.mark.parametrize(
    "statement",
    ["import acme_weather", "from google.nonesuch import x", "import azure.nonesuch", "from acme import tools"],
)
def test_an_unknown_distribution_is_not_guessed(failure, statement):
    error = failure(statement)
    assert error.code == "dependency"
    assert "pip" not in error.hint
    assert "look up which distribution provides it" in error.hint


def test_an_installed_package_without_the_module(failure):
    error = failure("from pluggy.nonesuch import x")
    assert "the installed pluggy" in error.message
    assert "pip" not in error.hint


@pytest.mark.parametrize(
    ("statement", "file", "cure"),
    [
        ("import helpers", "Mine/lib/helpers.py", "write `from lib import helpers`"),
        ("from helpers import x", "Mine/lib/deep/helpers.py", "write `from lib.deep.helpers import …`"),
        ("from Tools import x", "Mine/tools.py", "write `from tools import …`"),
        ("from kit.more import x", "Mine/lib/kit/more.py", "write `from lib.kit.more import …`"),
        ("import helpers", "Mine/my-lib/helpers.py", "move my-lib/helpers.py into the folder Mine"),
        ("from agents.mine import x", "Mine/agents/mine.py", "write `from .agents.mine import …`"),
        ("from calendar import x", "Mine/calendar.py", "write `from .calendar import …`"),
        ("from Mine.missing import x", "Mine/tools.py", "the folder Mine has no module 'missing'"),
        ("from docx import x", "Mine/lib/docx.py", "write `from lib.docx import …`"),
    ],
)
def test_a_file_of_the_agents_folder_that_answers_to_the_name(failure, statement, file, cure):
    error = failure(statement, [file])
    assert error.code == "import"
    assert cure in error.hint
    assert "pip" not in error.hint
    if "`from" in cure:
        written = cure.partition("`")[2].partition("`")[0].replace("…", "x")
        with pytest.raises(AssertionError, match="it was loaded"):
            failure(written, [file])


@pytest.mark.parametrize(("other", "moved"), [("tools.py", "tools.py"), ("tools/plan.py", "tools/")])
def test_a_single_file_agent_with_files_beside_it(failure, other, moved):
    error = failure("from tools.plan import x", [other], name="quick.py")
    assert error.hint.endswith(f"move it to quick/agent.py, and {moved} to quick/")


def test_a_link_that_leads_outside_is_named(failure, tmp_path):
    (tmp_path / "outside.py").write_text("x = 1")
    (tmp_path / "dropped" / "Mine").mkdir(parents=True)
    (tmp_path / "dropped" / "Mine" / "outside.py").symlink_to(tmp_path / "outside.py")
    for statement in ("import outside", "from .outside import x"):
        error = failure(statement)
        assert "outside.py is a symbolic link to a target outside" in error.message
        assert error.hint == "copy the target"


def test_the_table_has_one_entry_per_module():
    assert not {name for name in distributions._OTHER_NAMES if name in distributions._SAME_NAME}


def test_a_link_to_a_missing_file_is_named(failure, tmp_path):
    (tmp_path / "dropped" / "Mine").mkdir(parents=True)
    (tmp_path / "dropped" / "Mine" / "gone.py").symlink_to(tmp_path / "nowhere.py")
    error = failure("from gone import x\n")
    assert error.code == "import"
    assert "gone.py is a symbolic link to a file that does not exist" in error.message
    assert error.hint == "create it, or fix the link"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("from agents import Agent, Runner\nresult = await Runner.run(a, 'x')\n", "`async def main()`"),
        ("!pip install x\n", "remove the line, which is a command of notebooks"),
        ("x = 1\n%load_ext autoreload\n", "remove the line, which is a command of notebooks"),
        ("get_ipython().run_line_magic('pip', 'install x')\n", "remove the line, which only works in a notebook"),
        ("def\n", "fix the syntax error"),
    ],
)
def test_the_cure_for_the_code_of_a_notebook(failure, text, hint):
    assert hint in failure(text).hint


async def test_a_signal_handler_at_import_is_explained(tmp_path):
    (tmp_path / "Signals.py").write_text("import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n")
    async with gateway_in_memory(folder=tmp_path) as g:
        error = g.gateway.catalog.broken["Signals"].error
        assert (error.line, error.message) == (2, "the module sets a signal handler when it is imported")
        assert "if __name__ == '__main__':" in error.hint
