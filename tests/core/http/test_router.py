"""Starlette's exceptions in the routes of plugins, without Starlette's own middleware for them."""

import pytest
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gateway_core import hookimpl, load_config
from gateway_core.app import build


class Pages:
    def __init__(self, gateway, config):
        pass

    @hookimpl
    def routes(self):
        return [
            Route("/teapot", teapot),
            Route("/late", late),
            Route("/slash/", fine),
            WebSocketRoute("/socket", socket),
        ]


async def teapot(request):
    raise HTTPException(418, "a teapot", headers={"x-kind": "green"})


async def late(request):
    async def body():
        yield b"began"
        raise HTTPException(418)

    return StreamingResponse(body())


async def fine(request):
    return PlainTextResponse("fine")


async def socket(websocket):
    await websocket.accept()
    raise WebSocketException(4001, "enough")


@pytest.fixture
def client():
    overrides = {"state": {"folder": ""}, "plugins": {"folder_discovery": {"enabled": False}}}
    app = build(load_config(overrides=overrides, environ={}), plugins={"pages": Pages})
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def test_an_http_exception_is_an_error_response_with_its_status_and_headers(client):
    answer = client.get("/teapot", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-kind"], answer.headers["x-request-id"]) == (418, "green", "mine")
    assert answer.json()["error"]["message"] == "a teapot"


def test_an_http_exception_after_the_start_of_the_response_interrupts_it(client):
    with pytest.raises(HTTPException):
        client.get("/late")


def test_a_path_is_served_with_and_without_the_slash_at_its_end(client):
    assert client.get("/slash").text == client.get("/slash/").text == "fine"
    assert client.get("/healthz/").status_code == 200
    assert client.get("/nope/").json()["error"]["code"] == "not_found"


def test_the_response_to_an_unknown_method_names_the_methods_of_all_routes(client):
    answer = client.put("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_web_socket_exception_closes_the_connection_with_its_code(client):
    with client.websocket_connect("ws://localhost/socket") as connection, pytest.raises(WebSocketDisconnect) as caught:
        connection.receive_text()
    assert (caught.value.code, caught.value.reason) == (4001, "enough")
