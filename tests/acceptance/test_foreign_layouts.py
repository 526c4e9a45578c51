"""Projects in their own layouts are served unedited, and `check` gives the same verdicts as serving."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import COMMAND, serving
from tests.support.upstream import FakeUpstream

FOREIGN = Path(__file__).parents[1] / "fixtures" / "dropin_agents_foreign"
WORKING = {
    "health_pkg": ('call add_goal {"goal": "sleep"}', "tool said: guest has 1 goal for 7 days"),
    "Srced": ('call price {"item": "tea"}', "tool said: tea costs 3"),
    "project/pkg": ("say: hello", "hello"),
    "project/single": ("say: hello", "hello"),
    "prints_answers": ("say: hola", "hola"),
    "script": ("say: done", "done"),
}
BROKEN = {
    "docx": ("from agents import Agent\nimport docx\n", "pip install python-docx"),
    "unknown": ("from agents import Agent\nimport acme_weather\n", "look up which distribution provides it"),
    "linked": ("from agents import Agent\nfrom .outside import value\n", "copy the target"),
    "early": (
        "import openai\nopenai.OpenAI(base_url='http://127.0.0.1:9', api_key='k', max_retries=0).models.list()\n",
        "move this statement under",
    ),
}


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "agents"
    for name in ("health_pkg", "Srced", "project", "prints_answers.py", "script.py"):
        source = FOREIGN / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        root.mkdir(exist_ok=True)
        copy(source, root / name)
    for name, (text, _) in BROKEN.items():
        (root / name).mkdir()
        (root / name / "agent.py").write_text(text)
    (tmp_path / "outside.py").write_text("value = 1\n")
    (root / "linked" / "outside.py").symlink_to(tmp_path / "outside.py")
    (root / "again").symlink_to(root, target_is_directory=True)
    return tmp_path


def test_layouts_are_served_and_checked_alike(project):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEWAY_"))}
    with FakeUpstream() as upstream:
        (project / "gateway.toml").write_text(f"[plugins.upstreams.main]\nbase_url = '{upstream.base_url}'\n")
        done = subprocess.run(
            [str(COMMAND), "check", "--json"], cwd=project, env=clean, capture_output=True, text=True, timeout=120
        )
        rows = {row["model"]: row for row in json.loads(done.stdout)}
        assert {name for name in rows if rows[name]["state"] == "broken"} == {*BROKEN}, rows
        for name, (_, cure) in BROKEN.items():
            assert cure in rows[name]["diagnosis"]
        assert "the project 'agents' is not the SDK" in rows["Srced"]["diagnosis"]
        assert "not executed" in rows["script"]["diagnosis"]
        with serving(project) as server:
            client = server.client()
            listed = {model.id for model in client.models.list()}
            assert listed & {*rows} == {name for name in rows if rows[name]["state"] == "ok"}
            assert not {name for name in listed if name.startswith("again")}
            for model, (question, expected) in WORKING.items():
                answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
                assert answer.choices[0].message.content == expected, model
