"""LangChain's own integration tests of chat models, with the real command and an agent that offers client tools.

`docs/clients.md` lists the results.
"""

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.acceptance.conftest import serving
from tests.conformance.sensible_model import answer
from tests.support.upstream import FakeUpstream

AGENT = """
from agents import Agent

agent = Agent(name="Assistant")
__gateway__ = {"client_tools": "offer"}
"""
# One transparent pixel, in place of what the tests download.
FILE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a gateway with the agent."""
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "agents").mkdir()
    for name in ("Assistant", "Other"):
        (folder / "agents" / f"{name}.py").write_text(AGENT)
    with FakeUpstream(answer) as upstream:
        (folder / "gateway.toml").write_text(
            f"""
            [plugins.upstreams.fake]
            base_url = "{upstream.base_url}"
            default_model = "model"
            [plugins.entry_point_discovery]
            enabled = false
            """
        )
        with serving(folder) as running:
            yield f"{running.url}/v1"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace downloads of the tests: only that a model accepts a file matters, not the file."""
    tests = importlib.import_module("langchain_tests.integration_tests.chat_models")
    monkeypatch.setattr(tests.httpx, "get", lambda *_, **__: SimpleNamespace(content=FILE))


class TestChatCompletions(ChatModelIntegrationTests):
    """LangChain's tests, with `/v1/chat/completions`."""

    options: ClassVar[dict[str, Any]] = {}
    url = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def serve(cls, url: str) -> None:
        cls.url = url

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "Assistant",
            "base_url": self.url,
            "api_key": "any",
            "stream_usage": True,
            # LangChain would use one client in the event loops of all tests.
            "http_async_client": httpx.AsyncClient(),
            **self.options,
        }

    supports_image_inputs = supports_image_urls = supports_pdf_inputs = supports_audio_inputs = True
    supports_json_mode = True
    model_override_value = "Other"


class TestResponses(TestChatCompletions):
    """LangChain's tests, with `/v1/responses`."""

    options: ClassVar[dict[str, Any]] = {"use_responses_api": True}
