"""`/openapi.json` lists the routes available to the caller, and responses match the documented schemas."""

import jsonschema
from agents import Agent
from starlette.routing import Route

from gateway_core import described, hookimpl
from gateway_core.testing import gateway_in_memory, script
from tests.core.http.test_admin import Guard

BODY = {"model": "X", "messages": [{"role": "user", "content": "hi"}]}


class Page:
    def __init__(self, *_):
        pass

    @hookimpl
    def routes(self):
        @described("A page of a plugin", takes={"type": "object"}, status=201)
        async def described_page(request):
            raise AssertionError

        async def plain_page(request):
            """A page with a docstring.

            More text.
            """
            raise AssertionError

        return [Route("/a", described_page, methods=["POST"]), Route("/b/{id:path}/c", plain_page)]


async def description(g):
    return (await g.http.get("/openapi.json")).json()


async def test_routes_of_plugins_describe_themselves():
    async with gateway_in_memory({}, plugins={"page": Page}) as g:
        paths = (await description(g))["paths"]
    assert paths["/a"]["post"]["summary"] == "A page of a plugin"
    assert list(paths["/a"]["post"]["responses"]) == ["201", "4XX", "5XX"]
    assert paths["/b/{id}/c"]["get"]["summary"] == "A page with a docstring."
    assert [place["name"] for place in paths["/b/{id}/c"]["get"]["parameters"]] == ["id"]
    assert all(operation["summary"] for methods in paths.values() for operation in methods.values())


async def test_admin_endpoints_are_listed_for_admins_only():
    async with gateway_in_memory({}, plugins={"guard": Guard}, api_key="ann") as g:
        assert not [path for path in (await description(g))["paths"] if path.startswith(("/admin", "/security"))]
    async with gateway_in_memory({}, plugins={"guard": Guard}, api_key="admin") as g:
        assert {"/admin/agents", "/security/override"} <= (await description(g))["paths"].keys()


async def test_responses_match_their_schemas():
    async with gateway_in_memory({"X": Agent(name="x", model=script(*["hello"] * 9))}) as g:
        document = await description(g)
        for method, path, url, body in [
            ("post", "/v1/chat/completions", "/v1/chat/completions", BODY),
            ("post", "/v1/chat/completions", "/v1/chat/completions", {**BODY, "model": 5}),
            ("get", "/v1/models", "/v1/models", None),
            ("get", "/v1/models/{model}", "/v1/models/X", None),
            ("post", "/v1/responses", "/v1/responses", {"model": "X", "input": "hi"}),
            ("get", "/v1/responses/{id}", "/v1/responses/nope", None),
        ]:
            answer = await g.http.request(method, url, json=body)
            responses = document["paths"][path][method]["responses"]
            response = responses.get(str(answer.status_code)) or responses["4XX"]
            schema = {**response["content"]["application/json"]["schema"], "components": document["components"]}
            jsonschema.validate(answer.json(), schema)
    assert document["components"]["schemas"]["ModelId"]["anyOf"][0] == {"enum": ["X"]}


async def test_a_key_is_required_only_if_one_is_configured():
    async with gateway_in_memory({}) as g:
        opened = await description(g)
        assert opened["security"] == []
        assert "securitySchemes" not in opened["components"]
    async with gateway_in_memory({}, plugins={"guard": Guard}, api_key="ann") as g:
        assert (await description(g))["security"] == [{"key": []}]
