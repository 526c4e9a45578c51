"""Host names, origins and content types, checked by the middleware of a complete gateway."""

import pytest
from gateway_plugins.security.host_names import AllowedHosts

from gateway_core.testing import gateway_in_memory

JSON = {"content-type": "application/json"}


def gateway(**table):
    return gateway_in_memory(config={"plugins": {"security": table}})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "gateway.localhost:80",
        "127.0.0.1:8000",
        "127.8.9.1",
        "[::1]:8000",
        "192.168.1.7",
        "mine.example",
        "MINE.example:8443",
        "mine.example.",
    ],
)
async def test_own_host_names_are_allowed(host):
    async with gateway(allowed_hosts=["Mine.example"]) as g:
        assert (await g.http.get("/healthz", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "mine.example.evil.example",
        "notmine.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "localhost/evil",
        "localhost:x",
        "[::1",
        "",
        "a b",
        "2130706433.",
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/admin/agents", "/nothing"])
async def test_other_host_names_are_rejected(host, path):
    async with gateway(allowed_hosts=["mine.example"]) as g:
        answer = await g.http.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert answer.json()["error"]["code"] == "misdirected_request"


def test_a_star_allows_any_host_name():
    assert AllowedHosts(["*"], private=False).allows("whatever.example")
    assert not AllowedHosts(["*"], private=False).allows("a@b")


CHANGES = [("POST", "/admin/reload"), ("POST", "/security/preview"), ("PUT", "/admin/x"), ("DELETE", "/security/x/y")]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:9999", "https://localhost.evil.example", "file://", ""]
)
async def test_cross_origin_requests_to_admin_pages_are_rejected(method, path, origin):
    async with gateway() as g:
        answer = await g.http.request(method, path, headers={"origin": origin, **JSON}, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
        assert g.gateway.catalog.generation == 1


@pytest.mark.parametrize(
    "origin", ["http://localhost", "https://localhost", "https://ops.example", "HTTPS://OPS.example"]
)
async def test_same_origin_and_allowed_origins_are_accepted(origin):
    async with gateway(allowed_origins=["https://ops.example/"]) as g:
        answer = await g.http.post("/admin/reload", headers={"origin": origin, **JSON}, content=b"{}")
        assert answer.status_code == 200
        assert (await g.http.post("/admin/reload", headers={"origin": origin})).status_code == 200


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""]
)
async def test_a_body_that_is_not_json_is_rejected(method, path, kind):
    async with gateway() as g:
        answer = await g.http.request(method, path, headers={"content-type": kind} if kind else {}, content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert g.gateway.catalog.generation == 1


async def test_a_request_without_a_body_needs_no_content_type():
    async with gateway() as g:
        assert (await g.http.post("/admin/reload")).status_code == 200
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await g.http.post("/admin/reload", headers=form)).status_code == 415


async def test_cross_origin_requests_to_agents_need_a_preflight():
    async with gateway() as g:
        foreign = {"origin": "http://evil.example"}
        for kind in ({}, {"content-type": "text/plain"}):
            answer = await g.http.post("/v1/chat/completions", headers={**foreign, **kind}, content=b"{}")
            assert answer.status_code == 415
        # JSON needs a CORS preflight in a browser; this client sends none.
        assert (
            await g.http.post("/v1/chat/completions", headers={**foreign, **JSON}, content=b"{}")
        ).status_code == 400
        # Other clients send no `Origin` header and are not restricted.
        assert (await g.http.post("/v1/chat/completions", content=b"{}")).status_code == 400


async def test_cross_origin_reads_are_not_rejected():
    async with gateway() as g:
        assert (await g.http.get("/admin/agents", headers={"origin": "http://evil.example"})).status_code == 200
