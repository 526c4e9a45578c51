"""The plugin in a gateway: it provides the model, and a placeholder key while it runs."""

import os
from typing import Any

import pytest
from agents import Agent
from gateway_agents import sample, triage
from gateway_plugins.offline_model.model import NOTICE

from gateway_core.testing import gateway_in_memory


async def ask(g: Any, model: str, text: str) -> str:
    answer = await g.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return str(answer.choices[0].message.content)


async def test_the_samples_use_their_tools() -> None:
    async with gateway_in_memory({"SampleAgent": sample.agent, "Triage": triage.agent}) as g:
        weather = await ask(g, "SampleAgent", "What is the weather in Paris?")
        time = await ask(g, "SampleAgent", "What time is it?")
        invoice = await ask(g, "Triage", "Is invoice 1002 paid?")
    assert NOTICE in weather
    assert "The tool `get_weather` returned: The weather in Paris: 18 °C, sunny." in weather
    assert "The tool `current_time` returned:" in time
    assert "The tool `look_up_invoice` returned: Invoice 1002: 99.50 EUR" in invoice


async def test_a_module_that_creates_its_own_client_finds_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with gateway_in_memory({"A": Agent(name="A")}):
        assert os.environ["OPENAI_API_KEY"] == "offline"
    assert "OPENAI_API_KEY" not in os.environ
