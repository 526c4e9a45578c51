"""The Compose file for Open WebUI: its commands, run without Docker."""

import re
import shlex
from pathlib import Path

import httpx2
import yaml

from tests.acceptance.conftest import serving
from tests.acceptance.test_security import command

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "deploy" / "open-webui" / "compose.yaml").read_text())["services"]
PAGE = (ROOT / "docs" / "guides" / "open-webui-docker.md").read_text()


def test_open_webui_reaches_the_gateway_by_the_name_of_its_service(tmp_path):
    environment = dict(line.split("=", 1) for line in SERVICES["open-webui"]["environment"])
    url = httpx2.URL(environment["OPENAI_API_BASE_URL"])
    assert url.host in SERVICES
    assert str(url) in PAGE
    [create] = re.findall(r"docker compose run .*&& agent-gateway (keys create .*)\"", PAGE)
    [key] = re.findall(r"^    (agw_\S+)$", command(tmp_path, *shlex.split(create)), re.MULTILINE)
    (tmp_path / "agents").mkdir()
    [serve] = re.findall(r"exec agent-gateway serve (.*)\"", SERVICES["gateway"]["command"])
    with serving(tmp_path, "--offline", *shlex.split(serve)) as server:
        headers = {"host": f"{url.host}:{url.port}", "authorization": f"Bearer {key}"}
        answer = httpx2.get(f"http://127.0.0.1:{server.port}{url.path}/models", headers=headers, timeout=20)
        assert "SampleAgent" in [model["id"] for model in answer.json()["data"]]


def test_the_page_has_the_variable_of_the_compose_file():
    environment = dict(line.split("=", 1) for line in SERVICES["open-webui"]["environment"])
    [variable] = re.findall(r"\$\{(\w+):-\}", environment["OPENAI_API_KEY"])
    assert f"`{variable}=KEY`" in PAGE
    assert SERVICES["open-webui"]["ports"] == ["127.0.0.1:3000:8080"]
