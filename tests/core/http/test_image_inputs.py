"""Image inputs: URLs are passed to the upstream, or fetched if configured, but never from internal hosts."""

import base64

import openai
import pytest
from agents import Agent

from gateway_core.testing import gateway_in_memory, script
from tests.support.upstream import FakeUpstream, Reply

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


def image(url: str) -> dict:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "A", "messages": [{"role": "user", "content": parts}]}


def serve(request):
    if request.path == "/v1/cat.png":
        return Reply([PNG], headers={"content-type": "image/png; x=y"})
    if request.path == "/v1/page":
        return Reply([b"<html>"], headers={"content-type": "text/html"})
    if request.path == "/v1/moved":
        return Reply([b""], 302, {"location": "/v1/cat.png", "content-type": "image/png"})
    if request.path == "/v1/big.png":
        return Reply([b"x" * 1_000_000] * 11, headers={"content-type": "image/png"})
    return Reply([b""], 404)


def agent_and_model(answers=1):
    model = script(*["a cat"] * answers)
    return Agent(name="a", model=model), model


def seen(model) -> list[str]:
    return [p["image_url"] for item in model.calls[-1].input for p in item["content"] if p["type"] == "input_image"]


@pytest.mark.parametrize("url", ["https://host.example/cat.png", "data:image/png;base64,AAAA", "http://10.0.0.1/x"])
async def test_by_default_the_url_is_passed_to_the_upstream(url):
    agent, model = agent_and_model()
    async with gateway_in_memory({"A": agent}) as g:
        await g.openai.chat.completions.create(**image(url))
    assert seen(model) == [url]


async def test_a_fetched_image_reaches_the_model_as_data():
    agent, model = agent_and_model(2)
    with FakeUpstream(serve) as host:
        config = {"http": {"fetch_images": True, "fetch_images_from": ["127.0.0.0/8"]}}
        async with gateway_in_memory({"A": agent}, config=config) as g:
            await g.openai.chat.completions.create(**image(f"{host.base_url}/cat.png"))
            assert seen(model) == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
            await g.openai.chat.completions.create(**image("data:image/png;base64,AAAA"))
            assert seen(model) == ["data:image/png;base64,AAAA"]


@pytest.mark.parametrize(
    ("path", "why"),
    [("page", "not an image"), ("moved", "returned 302"), ("big.png", "larger"), ("none", "returned 404")],
)
async def test_fetch_errors_are_reported(path, why):
    agent, _ = agent_and_model()
    with FakeUpstream(serve) as host:
        config = {"http": {"fetch_images": True, "fetch_images_from": ["127.0.0.0/8"]}}
        async with gateway_in_memory({"A": agent}, config=config) as g:
            with pytest.raises(openai.BadRequestError, match=why) as caught:
                await g.openai.chat.completions.create(**image(f"{host.base_url}/{path}"))
            assert caught.value.code == "invalid_image_url"


async def test_internal_hosts_are_never_contacted():
    agent, _ = agent_and_model()
    with FakeUpstream(serve) as host:
        async with gateway_in_memory({"A": agent}, config={"http": {"fetch_images": True}}) as g:
            for url in (f"{host.base_url}/cat.png", f"{host.base_url}/cat.png".replace("http:", "https:")):
                with pytest.raises(openai.BadRequestError, match="could not be fetched"):
                    await g.openai.chat.completions.create(**image(url))
        assert host.records == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "ftp://host.example/x", "x"])
async def test_other_url_schemes_are_rejected(url):
    agent, _ = agent_and_model()
    async with gateway_in_memory({"A": agent}) as g:
        with pytest.raises(openai.BadRequestError, match="must begin with"):
            await g.openai.chat.completions.create(**image(url))


async def test_too_many_images_are_rejected():
    agent, _ = agent_and_model()
    body = image("data:image/png;base64,AAAA")
    body["messages"][0]["content"] *= 3
    async with gateway_in_memory({"A": agent}, config={"http": {"max_images": 2}}) as g:
        with pytest.raises(openai.BadRequestError, match="more than 2 images"):
            await g.openai.chat.completions.create(**body)
