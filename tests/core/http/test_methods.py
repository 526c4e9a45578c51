"""Wrong methods and unsupported paths: `Allow` names all methods of a path."""

import pytest
from agents import Agent
from starlette.testclient import TestClient, WebSocketDenialResponse

from gateway_core.app import build
from gateway_core.config.settings import load_config
from gateway_core.testing import gateway_in_memory, script


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("PUT", "/v1/responses/resp_1/", "DELETE, GET, HEAD"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
        ("GET", "/v1/responses", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models/W", "GET, HEAD"),
        ("PATCH", "/admin/agents/errors", "DELETE, GET, HEAD"),
    ],
)
async def test_the_allowed_methods_are_those_of_all_routes(method, path, allowed):
    async with gateway_in_memory({"W": Agent(name="w", model=script("hi"))}) as g:
        for each, status in ((method, 405), ("OPTIONS", 204)):
            answer = await g.http.request(each, path)
            assert (answer.status_code, answer.headers["allow"]) == (status, allowed)


@pytest.mark.parametrize("path", ["compact", "input_tokens", "input_tokens/"])
async def test_unsupported_operations_are_named(path):
    async with gateway_in_memory({"W": Agent(name="w", model=script("hi"))}) as g:
        answer = await g.http.post(f"/v1/responses/{path}", json={"model": "W", "input": "hi"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported")


def test_the_web_socket_mode_is_rejected():
    overrides = {"state": {"folder": ""}, "plugins": {"folder_discovery": {"enabled": False}}}
    with TestClient(build(load_config(overrides=overrides, environ={}))) as client:
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("ws://localhost/v1/responses"):
            pass
        assert caught.value.status_code == 404
        assert caught.value.json()["error"]["code"] == "unsupported"
