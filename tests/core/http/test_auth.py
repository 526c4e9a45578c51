"""Authentication and authorization: plugins decide, and a denied request discloses nothing."""

import pytest
from agents import Agent

from gateway_core import AuthenticationError, Decision, Principal, hookimpl
from gateway_core.testing import gateway_in_memory, script

AGENTS = {"Open": Agent(name="o"), "Secret": Agent(name="s")}


class Guard:
    """Accepts two keys; only the admin's key can use `Secret`."""

    def __init__(self, *_):
        pass

    @hookimpl
    async def authenticate(self, request):
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not key or key == "none":
            return None
        if key not in ("ann", "root"):
            raise AuthenticationError("the API key is unknown")
        return Principal(key, admin=key == "root")

    @hookimpl
    async def authorize(self, principal, entry):
        return Decision(principal.admin or entry.id != "Secret", "test")


def guarded(key):
    return gateway_in_memory(AGENTS, model=script(*["hello"] * 5), plugins={"guard": Guard}, api_key=key)


def chat(g, model):
    return g.http.post("/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "hi"}]})


@pytest.mark.parametrize(("key", "message"), [("none", "missing API key"), ("wrong", "the API key is unknown")])
async def test_every_endpoint_requires_a_valid_key(key, message):
    async with guarded(key) as g:
        for answer in (
            await g.http.get("/v1/models"),
            await g.http.get("/v1/models/Open"),
            await g.http.get("/v1/models/Nothing"),
            await chat(g, "Open"),
            await g.http.post("/v1/chat/completions", content=b"not json"),
            await g.http.get("/admin/agents"),
        ):
            assert answer.status_code == 401
            assert message in answer.json()["error"]["message"]
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await g.http.get("/healthz")).status_code == 200


async def test_models_are_limited_to_those_the_caller_may_use():
    async with guarded("ann") as g:
        assert [model["id"] for model in (await g.http.get("/v1/models")).json()["data"]] == ["Open"]
    async with guarded("root") as g:
        assert [model["id"] for model in (await g.http.get("/v1/models")).json()["data"]] == ["Open", "Secret"]


async def test_a_forbidden_agent_does_not_run_and_is_not_suggested():
    async with guarded("ann") as g:
        assert (await chat(g, "Open")).status_code == 200
        assert (await chat(g, "Secret")).status_code == 403
        assert (await chat(g, "secret")).status_code == 403
        missing = (await chat(g, "Secre")).json()["error"]
        assert missing["code"] == "model_not_found"
        assert "Secret" not in missing["message"]
        assert len(g.ended) == 1


async def test_a_failing_policy_denies_access():
    class Broken(Guard):
        @hookimpl
        async def authorize(self, principal, entry):
            raise RuntimeError("no database")

    async with gateway_in_memory(AGENTS, plugins={"guard": Broken}, api_key="root") as g:
        refused = await chat(g, "Open")
        assert refused.status_code == 403
        assert "database" not in refused.text


@pytest.mark.parametrize(
    ("given", "kept"), [("mine-1", True), ("a" * 128, True), ("a" * 129, False), ("with space", False), ("", False)]
)
async def test_a_well_formed_request_id_is_kept(given, kept):
    async with gateway_in_memory() as g:
        answer = await g.http.get("/healthz", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers["x-request-id"]


async def test_configured_cors_origins_can_call_and_read_errors():
    config = {"http": {"cors_origins": ["https://ui.example"]}}
    async with gateway_in_memory(AGENTS, config=config) as g:
        ask = {"origin": "https://ui.example", "access-control-request-method": "POST"}
        allowed = await g.http.options("/v1/chat/completions", headers=ask)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://ui.example"
        for name in ("private", "local"):
            private = {**ask, f"access-control-request-{name}-network": "true"}
            allowed = await g.http.options("/v1/chat/completions", headers=private)
            assert allowed.headers[f"access-control-allow-{name}-network"] == "true"
            foreign = await g.http.options("/v1/models", headers={**private, "origin": "https://evil.example"})
            assert f"access-control-allow-{name}-network" not in foreign.headers or foreign.status_code == 400
        foreign = await g.http.options("/v1/chat/completions", headers={**ask, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
        error = await g.http.get("/v1/models/nope", headers={"origin": "https://ui.example"})
        assert error.status_code == 404
        assert error.headers["access-control-allow-origin"] == "https://ui.example"
    async with gateway_in_memory(AGENTS) as g:
        plain = await g.http.get("/v1/models", headers={"origin": "https://ui.example"})
        assert "access-control-allow-origin" not in plain.headers


async def test_a_slash_at_the_end_of_a_path_has_no_meaning():
    async with gateway_in_memory(AGENTS, model=script("hi")) as g:
        for path in ("/v1/models", "/healthz", "/openapi.json", "/v1/models/Open"):
            plain, twin = await g.http.get(path), await g.http.get(f"{path}/")
            assert (twin.status_code, twin.content) == (plain.status_code, plain.content), path
        body = {"model": "Open", "messages": [{"role": "user", "content": "x"}]}
        answer = await g.http.post("/v1/chat/completions/", json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "hi"
        assert (await g.http.put("/v1/chat/completions/")).status_code == 405
        for path in ("/v1/nothing/", "/v1/nothing", "//", "/"):
            answer = await g.http.get(path)
            assert (answer.status_code, "location" in answer.headers) == (404, False), path


async def test_plugin_routes_and_middleware_are_served_and_failures_disclose_nothing():
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    class Marking:
        def __init__(self, app):
            self._app = app

        async def __call__(self, scope, receive, send):
            async def marked(message):
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"x-marked", b"yes")]}
                await send(message)

            await self._app(scope, receive, marked)

    class Pages:
        def __init__(self, *_):
            pass

        @hookimpl
        def routes(self):
            async def fine(request):
                return PlainTextResponse("fine")

            async def broken(request):
                raise RuntimeError("canary")

            return [Route("/fine", fine), Route("/broken", broken)]

        @hookimpl
        def middleware(self):
            return [Middleware(Marking)]

    async with gateway_in_memory(plugins={"pages": Pages}) as g:
        fine = await g.http.get("/fine")
        assert (fine.text, fine.headers["x-marked"]) == ("fine", "yes")
        broken = await g.http.get("/broken")
        assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal_error")
        assert "canary" not in broken.text
