"""The plugin in a complete gateway: authentication, authorization, and access to each route."""

import logging
import re
from contextlib import asynccontextmanager

import pytest
from agents import Agent, ApplyPatchTool, ShellTool, WebSearchTool
from gateway_plugins.security import Security
from gateway_plugins.security.keys.key_ring import make_key
from gateway_plugins.security.settings import Settings
from starlette.routing import Mount, Route

from gateway_core import ConfigError, LoadError, Principal, RunContext, ToolInfo, hookimpl
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.testing import gateway_in_memory, script
from gateway_core.types import AgentEntry
from tests.plugins.security.support import key_table, plugin, settings

ANN, BOB, ROOT, OLD, OFF = (make_key() for _ in range(5))
AGENTS = {name: Agent(name="x") for name in ("Open", "labs/A", "labs/B", "Secret")}
TABLE = {
    "keys": {
        "ann": key_table(ANN, agents=["Open", "labs/*"], deny_agents=["labs/B"]),
        "bob": key_table(BOB),
        "root": key_table(ROOT, admin=True),
        "old": key_table(OLD, principal="ann", agents=["**"], expires="2020-01-01"),
        "off": key_table(OFF, principal="ann", agents=["**"], disabled=True),
    },
    "rules": {"agents": ["Open"]},
}


@asynccontextmanager
async def gateway(key=None, table=TABLE, **more):
    config = {"plugins": {"security": table}}
    given = key.text if key else "none"
    model = script(*["hello"] * 9)
    async with gateway_in_memory(AGENTS, model=model, config=config, api_key=given, **more) as g:
        if key is None:
            del g.http.headers["authorization"]
        yield g


def chat(g, model, **more):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return g.http.post("/v1/chat/completions", json=body, **more)


async def listed(g):
    return [model["id"] for model in (await g.http.get("/v1/models")).json()["data"]]


class DecisionRecorder:
    """Records the announced decisions."""

    made = ()

    def __init__(self, *_):
        DecisionRecorder.made = []

    @hookimpl
    def on_decision(self, made):
        DecisionRecorder.made.append(made)


async def test_without_keys_all_requests_are_allowed():
    async with gateway_in_memory(AGENTS, model=script("hello"), api_key="anything") as g:
        assert not g.gateway.hooks.guarded
        assert (await chat(g, "Secret")).status_code == 200
        assert (await g.http.get("/admin/agents")).status_code == 200
        assert len(await listed(g)) == 4


async def test_each_key_lists_and_uses_only_its_agents():
    async with gateway(ANN, plugins={"recorder": DecisionRecorder}) as g:
        assert await listed(g) == ["Open", "labs/A"]
        assert [(await chat(g, model)).status_code for model in AGENTS] == [200, 200, 403, 403]
        assert [(await chat(g, model)).status_code for model in ("LABS/b", "default/secret")] == [403, 403]
        assert (await g.http.get("/v1/models/labs/B")).status_code == 403
        assert (await chat(g, "Secre")).json()["error"]["code"] == "model_not_found"
        assert "Secret" not in (await chat(g, "Secre")).text
        decisions = [
            (m.principal.id, m.principal.key, m.subject, m.decision.allowed, m.decision.source)
            for m in DecisionRecorder.made
        ]
        assert decisions[1:4] == [
            ("ann", ANN.id, "labs/A", True, "key"),
            ("ann", ANN.id, "labs/B", False, "key"),
            ("ann", ANN.id, "Secret", False, "key"),
        ]
    async with gateway(BOB) as g:
        assert await listed(g) == ["Open"]
        assert [(await chat(g, model)).status_code for model in AGENTS] == [200, 403, 403, 403]


async def test_missing_and_invalid_keys_are_401_and_reveal_nothing(caplog):
    unknown = make_key()
    refused = {
        "none": {},
        "unknown": {"authorization": f"Bearer {unknown.text}"},
        "expired": {"authorization": f"Bearer {OLD.text}"},
        "disabled": {"x-api-key": OFF.text},
        "hash": {"authorization": f"Bearer {ANN.hash}"},
        "id": {"authorization": f"Bearer {ANN.id}"},
        "two": {"authorization": f"Bearer {ANN.text}", "x-api-key": BOB.text},
        "basic": {"authorization": "Basic YTpi"},
        "unicode": {"x-api-key": "ключ".encode()},
        "long": {"x-api-key": "k" * 10_000},
    }
    caplog.set_level(logging.DEBUG)
    async with gateway() as g:
        messages = {}
        for name, headers in refused.items():
            for method, path in [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/admin/agents")]:
                answer = await g.http.request(method, path, headers=headers)
                assert answer.status_code == 401, (name, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                messages[name] = answer.json()["error"]["message"]
        assert (
            messages["unknown"]
            == messages["expired"]
            == messages["disabled"]
            == messages["hash"]
            == messages["id"]
            == messages["long"]
        )
        huge = await g.http.get("/v1/models", headers={"x-api-key": "k" * 1_000_000})
        assert huge.status_code == 431
        facts = (await g.http.get("/admin/plugins", headers={"x-api-key": ROOT.text})).text
    seen = caplog.text + repr(messages) + facts
    for key in (ANN, BOB, ROOT, OLD, OFF, unknown):
        assert key.text[13:] not in seen
        assert key.hash.removeprefix("sha256:") not in seen
    assert f"rejected the key {OLD.id}: expired" in caplog.text


async def test_many_failed_authentications_are_rate_limited():
    async with gateway() as g:
        statuses = []
        for _ in range(1000):
            answer = await g.http.get("/v1/models", headers={"authorization": f"Bearer {make_key().text}"})
            statuses.append(answer.status_code)
        assert statuses == [401] * 60 + [429] * 940
        assert int(answer.headers["retry-after"]) <= 60
        # A valid key is not refused because of other clients at the address.
        assert (await g.http.get("/v1/models", headers={"x-api-key": ANN.text})).status_code == 200


def routes(app_routes, prefix=""):
    for route in app_routes:
        if isinstance(route, Mount):
            yield from routes(route.routes, prefix + route.path)
        elif isinstance(route, Route):
            for method in route.methods or ["GET"]:
                yield method, prefix + route.path


PUBLIC = {"/healthz", "/readyz"}
ANY_KEY = {"/openapi.json"}


async def test_every_route_belongs_to_the_api_or_the_admin_pages():
    """Every route is public, for API keys or for admin keys; a new route must be added here."""
    from gateway_core.app import build
    from gateway_core.config.settings import load_config

    app = build(load_config(environ={}, overrides={"plugins": {"security": TABLE, "upstreams": {"enabled": False}}}))
    async with gateway() as g:
        asked = 0
        for method, path in routes(app.routes):
            url = re.sub(r"\{\w+:path\}", "Open", re.sub(r"\{(id|request_id)\}", "x", path))
            assert "{" not in url, f"{path}: add values for its parameters"
            as_user, as_admin, without_key = [
                (
                    await g.http.request(method, url, headers={"authorization": f"Bearer {key}" if key else ""})
                ).status_code
                for key in (ANN.text, ROOT.text, None)
            ]
            if path in PUBLIC:
                assert without_key == as_user == as_admin == 200, path
                continue
            assert without_key == 401, path
            if path in ANY_KEY:
                assert (as_user, as_admin) == (200, 200), path
            elif path.startswith("/v1/"):
                assert (as_admin, as_user in (401, 403)) == (403, False), path
            else:
                assert path.startswith(("/admin/", "/security/", "/metrics")), f"{path} is not an admin page"
                assert (as_user, as_admin in (401, 403)) == (403, False), path
            asked += 1
        assert asked >= 8


async def test_an_admin_key_needs_the_scope_and_each_refusal_is_announced_once():
    reading = make_key()
    table = {**TABLE, "keys": {**TABLE["keys"], "reader": key_table(reading, admin=True, scopes=["read"])}}
    async with gateway(reading, table, plugins={"recorder": DecisionRecorder}) as g:
        assert (await g.http.get("/admin/agents")).status_code == 200
        refused = await g.http.post("/admin/reload")
        assert (refused.status_code, "scope 'reload'" in refused.text) == (403, True)
        assert (await g.http.get("/v1/models")).status_code == 403
        assert [(m.kind, m.subject, m.decision.allowed) for m in DecisionRecorder.made] == [
            ("admin", "/admin/agents", True),
            ("admin", "/admin/reload", False),
            ("admin", "/v1/models", False),
        ]


async def test_admin_keys_may_chat_if_enabled():
    async with gateway(ROOT, {**TABLE, "admin_keys_may_chat": True}) as g:
        assert await listed(g) == ["Open"]
        assert (await chat(g, "Open")).status_code == 200


@pytest.mark.parametrize("value", ["k\r\nx-injected: 1", "k\n", "\x00", "k\tk"])
async def test_a_key_with_control_characters_is_rejected(value):
    async with gateway() as g:
        answer = await g.http.get("/v1/models", headers={b"x-api-key": value.encode()})
        assert answer.status_code == 401
        assert "x-injected" not in answer.headers


async def test_a_blocked_module_is_not_imported(tmp_path):
    for name in ("labs/Good", "labs/Bad"):
        (tmp_path / name).mkdir(parents=True)
        mark = tmp_path / f"{name.replace('/', '-')}-was-imported"
        (tmp_path / name / "agent.py").write_text(
            f"open({str(mark)!r}, 'w').close()\nfrom agents import Agent\nagent = Agent(name='x')\n"
        )
    table = {"namespaces": {"labs": {"deny_modules": ["labs/bad"]}}}
    async with gateway_in_memory(folder=tmp_path, model=script(), config={"plugins": {"security": table}}) as g:
        assert (tmp_path / "labs-Good-was-imported").exists()
        assert not (tmp_path / "labs-Bad-was-imported").exists()
        assert await listed(g) == ["labs/Good"]
        [broken] = [a for a in (await g.http.get("/admin/agents")).json()["agents"] if a["state"] == "broken"]
        assert (broken["id"], broken["diagnosis"]["kind"]) == ("labs/Bad", "security")
        assert "[plugins.security.namespaces.labs]: labs/bad" in broken["diagnosis"]["hint"]
        # After the rule is removed, the next reload loads the module, although its file is unchanged.
        await plugin(g).reconfigure(Settings())
        await g.gateway.reload()
        assert await listed(g) == ["labs/Bad", "labs/Good"]
        # A new rule takes effect immediately for a loaded module.
        await plugin(g).reconfigure(settings({"rules": {"deny_modules": ["labs/good"]}}))
        assert await listed(g) == ["labs/Bad"]
        assert (await chat(g, "labs/Good")).status_code == 403


async def test_denials_apply_without_keys():
    async with gateway_in_memory(AGENTS, config={"plugins": {"security": {"rules": {"deny_agents": ["Secret"]}}}}) as g:
        assert await listed(g) == ["Open", "labs/A", "labs/B"]


async def test_valid_settings_apply_to_the_next_request_and_invalid_ones_are_rejected():
    async with gateway(ANN) as g:
        security = plugin(g)
        await security.reconfigure(settings({**TABLE, "keys": {"ann": key_table(ANN, agents=["Secret"])}}))
        assert await listed(g) == ["Secret"]
        for wrong in ({}, {"keys": {"ann": key_table(ANN, id="a b")}}, {**TABLE, "rules": {"agents": ["a**"]}}):
            with pytest.raises(ConfigError):
                await security.reconfigure(settings(wrong))
            assert g.gateway.hooks.guarded
            assert await listed(g) == ["Secret"]
        await security.reconfigure(settings({"keys": {"bob": key_table(BOB)}, "allowed_hosts": ["x.example"]}))
        assert (await g.http.get("/v1/models")).status_code == 401
        assert (await g.http.get("/healthz", headers={"host": "x.example"})).status_code == 200


async def test_a_reload_can_add_the_first_keys():
    async with gateway(table={}) as g:
        assert (await g.http.get("/v1/models")).status_code == 200
        await plugin(g).reconfigure(settings(TABLE))
        assert (await g.http.get("/v1/models")).status_code == 401
        assert (await g.http.get("/admin/agents")).status_code == 401


def security(table=TABLE) -> Security:
    return Security(NullGateway(), settings(table))


def run(principal):
    return RunContext("req_1", principal, "labs/A")


def tool(name="t", source="sdk-native", open=True, server=None):
    return ToolInfo(name, source, "labs/A", "A", server, open)


async def test_tools_use_their_own_default_if_no_rule_matches():
    ann = Principal("ann", key=ANN.id)
    assert await security().authorize_tool(run(ann), tool()) is None
    assert await security().authorize_tool(run(ann), tool(source="gateway", open=False)) is None
    hooks = Hooks({"security": security()})
    assert not (await hooks.authorize_tool(run(ann), tool(source="gateway", open=False))).allowed
    assert (await hooks.authorize_tool(run(ann), tool(source="mcp", open=True))).allowed
    allowing = Hooks({"security": security({**TABLE, "rules": {"tools": ["gateway:mail/*"]}})})
    assert (await allowing.authorize_tool(run(ann), tool("mail/send", "gateway", open=False))).allowed
    assert not (await allowing.authorize_tool(run(ann), tool("mail/send", "mcp", open=False))).allowed
    refusing = Hooks({"security": security({"namespaces": {"labs": {"native_tools": "refuse"}}})})
    assert not (await refusing.authorize_tool(run(ann), tool())).allowed


async def test_a_removed_key_may_not_call_tools():
    plugin = security()
    ann = Principal("ann", key=ANN.id)
    assert await plugin.authorize_tool(run(ann), tool()) is None
    await plugin.reconfigure(settings({"keys": {"bob": key_table(BOB)}}))
    decision = await plugin.authorize_tool(run(ann), tool())
    assert (decision.allowed, decision.reason) == (False, "the key does not exist")


def test_a_blocked_module_is_a_load_error():
    entry = AgentEntry("X", "x.py", "1", lambda: None)
    with pytest.raises(LoadError) as caught:
        security({"rules": {"modules": []}}).admit_agent(entry)
    assert (caught.value.code, caught.value.source) == ("security", "x.py")


def test_the_description_contains_no_secrets():
    facts = security().describe()
    assert {key["name"]: key["state"] for key in facts["keys"]} == {
        "ann": "good",
        "bob": "good",
        "root": "good",
        "old": "expired",
        "off": "disabled",
    }
    assert ANN.hash.removeprefix("sha256:") not in repr(facts)


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        ({}, ["shell", "apply_patch", "web_search"]),
        ({"native_tools": "refuse"}, ["web_search"]),
        ({"block_tools": ["sdk-native:shell"]}, ["apply_patch", "web_search"]),
        ({"block_tools": ["hosted:**"]}, ["shell", "apply_patch"]),
    ],
)
async def test_a_shell_that_runs_here_is_an_agents_own_tool(rules, shown):
    """A tool of another kind than a function is hidden from the model if the policy refuses it."""
    shell = ShellTool(executor=lambda request: "ran")
    patch = ApplyPatchTool(editor=None)
    agent = Agent(name="x", tools=[shell, patch, WebSearchTool()])
    model = script("done")
    config = {"plugins": {"security": {"rules": rules}}}
    async with gateway_in_memory({"X": agent}, model=model, config=config) as g:
        assert (await chat(g, "X")).status_code == 200
        [facts] = (await g.http.get("/admin/agents")).json()["agents"]
    assert [tool.name for tool in model.calls[-1].tools] == shown
    sources = {tool["name"]: tool["source"] for tool in facts["agents"][0]["tools"]}
    assert sources == {"shell": "sdk-native", "apply_patch": "sdk-native", "web_search": "hosted"}
