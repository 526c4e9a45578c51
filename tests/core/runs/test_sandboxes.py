"""Agents that work in a sandbox, with the SDK's client for this machine and harmless commands in temporary folders."""

import asyncio
import time
from pathlib import Path

import pytest
from agents import Agent, RunConfig, Runner
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.testing import ScriptedModel, assistant_message
from openai.types.responses import ResponseCustomToolCall

from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.gateway import RunningGateway
from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Decision, Principal, ToolCall
from tests.support.upstream import FakeUpstream

HI = [{"role": "user", "content": "hi"}]
BOTH = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(autouse=True)
def workspaces(tmp_path, monkeypatch):
    """The folder that contains the workspaces."""
    folder = tmp_path / "workspaces"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def settings(**more) -> dict:
    return {"runs": {"sandbox": {"client": "local", **more}}}


def worker(*turns, name="worker", **options) -> SandboxAgent:
    return SandboxAgent(name=name, model=script(*turns), instructions="Work.", **options)


def run(command: str):
    return call("exec_command", cmd=command)


def outputs(agent: Agent) -> list[str]:
    """The outputs of the commands that an agent has run."""
    items = agent.model.calls[-1].input
    texts = [item["output"] for item in items if item.get("type") == "function_call_output"]
    return [text.partition("Output:\n")[2].strip() for text in texts]


async def ask(g, chat=None, *, model="X", stream=False, key="none"):
    headers = {"authorization": f"Bearer {key}", **({"x-agent-gateway-session": chat} if chat else {})}
    if stream:
        events = await g.openai.responses.create(model=model, input="hi", stream=True, extra_headers=headers)
        return "".join([event.delta async for event in events if event.type == "response.output_text.delta"])
    answer = await g.openai.chat.completions.create(model=model, messages=HI, extra_headers=headers)
    return answer.choices[0].message.content


async def until_empty(folder: Path) -> None:
    async with asyncio.timeout(20):
        while list(folder.iterdir()):
            await asyncio.sleep(0.01)


@BOTH
async def test_a_chat_continues_in_its_workspace(stream, workspaces):
    agent = worker(run("echo hello > a.txt"), "One.", run("cat a.txt"), "Two.", run("ls"), "Three.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        assert await ask(g, "chat 1", stream=stream) == "One."
        assert await ask(g, "chat 1", stream=stream) == "Two."
        assert outputs(agent) == ["hello"]
        assert len(list(workspaces.iterdir())) == 1
        assert await ask(g, "chat 2", stream=stream) == "Three."
        assert outputs(agent) == [""]
        assert len(list(workspaces.iterdir())) == 2
    assert not list(workspaces.iterdir())


async def test_a_request_without_a_chat_has_its_own_workspace(workspaces):
    agent = worker(run("echo hello > a.txt"), "One.", run("ls"), "Two.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        await ask(g)
        await until_empty(workspaces)
        await ask(g)
        assert outputs(agent) == [""]
        await until_empty(workspaces)


async def test_principals_never_share_a_workspace(workspaces):
    class Names:
        def __init__(self, *_):
            pass

        @hookimpl(tryfirst=True)
        async def authenticate(self, request):
            return Principal(request.headers["authorization"].removeprefix("Bearer "))

    agent = worker(run("echo secret > a.txt"), "One.", run("ls"), "Two.")
    plugins = {"security": {"enabled": False}}
    async with gateway_in_memory(
        {"X": agent}, plugins={"names": Names}, config={**settings(), "plugins": plugins}
    ) as g:
        await ask(g, "same", key="alice")
        await ask(g, "same", key="bob")
        assert outputs(agent) == [""]
        assert len(list(workspaces.iterdir())) == 2


async def test_concurrent_requests_have_separate_workspaces():
    agent = worker(*[run("echo x >> a.txt; sleep 0.2; cat a.txt")] * 3, "One.", "Two.", "Three.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        answers = await asyncio.gather(*[ask(g, f"chat {number}") for number in range(3)])
    assert sorted(answers) == ["One.", "Three.", "Two."]
    for recorded in agent.model.calls[3:]:
        assert [item["output"].splitlines()[-1] for item in recorded.input if "output" in item] == ["x"]


async def test_idle_workspaces_are_deleted(workspaces):
    agent = worker(run("echo hello > a.txt"), "One.", run("ls"), "Two.")
    async with gateway_in_memory({"X": agent}, config=settings(idle="50ms")) as g:
        await ask(g, "chat")
        await until_empty(workspaces)
        await ask(g, "chat")
        assert outputs(agent) == [""]


async def test_the_workspace_that_is_unused_for_longest_makes_room(workspaces):
    agent = worker(*[turn for number in range(3) for turn in (run(f"echo {number} > {number}.txt"), "Done.")])
    async with gateway_in_memory({"X": agent}, config=settings(max_workspaces=2)) as g:
        for number in range(3):
            await ask(g, f"chat {number}")
        assert sorted(file.name for file in workspaces.rglob("*.txt")) == ["1.txt", "2.txt"]


async def test_a_request_is_refused_if_all_workspaces_are_in_use(workspaces):
    agent = worker(run("while [ ! -e ../stop ]; do sleep 0.02; done"), "One.", "Two.")
    async with gateway_in_memory({"X": agent}, config=settings(max_workspaces=1)) as g:
        first = asyncio.create_task(ask(g, "chat 1"))
        async with asyncio.timeout(20):
            while not list(workspaces.iterdir()):
                await asyncio.sleep(0.01)
        answer = await g.http.post("/v1/chat/completions", json={"model": "X", "messages": HI})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "too_many_sandboxes"
        (workspaces / "stop").touch()
        await first


async def test_the_environment_of_the_gateway_is_not_visible(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-gateway")
    agent = worker(run("env"), "Done.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        await ask(g)
    assert "PATH=" in outputs(agent)[0]
    assert "sk-of-the-gateway" not in outputs(agent)[0]


async def test_agents_with_different_manifests_have_separate_workspaces():
    manifest = Manifest(entries={"data.txt": File(content=b"of the target")})
    target = worker(run("cat data.txt; ls"), "From the target.", name="target", default_manifest=manifest)
    nested = worker(run("ls"), "From the tool.", name="nested")
    agent = worker(
        *(run("touch mine"), call("ask_nested", input="x"), call("transfer_to_target")),
        handoffs=[target],
        tools=[nested.as_tool("ask_nested", "Ask.")],
    )
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        assert await ask(g, "chat") == "From the target."
    assert outputs(target)[-1] == "of the targetdata.txt"
    assert outputs(nested) == ["mine"]


async def test_a_plain_agent_hands_off_to_one_with_a_sandbox(workspaces):
    target = worker(run("echo hello"), "From the target.", name="target")
    agent = Agent(name="x", model=script("No need.", call("transfer_to_target")), handoffs=[target])
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        assert await ask(g, "chat") == "No need."
        assert not list(workspaces.iterdir())
        assert await ask(g, "chat") == "From the target."
    assert outputs(target)[-1] == "hello"


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_approved_command_runs_in_the_workspace_that_the_run_paused_in(deleted, workspaces):
    def approve(toolset):
        async def needs_approval(context, arguments, call_id):
            return arguments.get("cmd", "").startswith("cat")

        toolset.exec_command.needs_approval = needs_approval

    agent = worker(
        *(run("echo hello > a.txt"), run("cat a.txt"), "Done."), capabilities=[Shell(configure_tools=approve)]
    )
    async with gateway_in_memory({"X": agent}, config=settings(idle="50ms" if deleted else "1m")) as g:
        question = await ask(g)
        if deleted:
            await until_empty(workspaces)
        messages = [*HI, {"role": "assistant", "content": question}, {"role": "user", "content": "yes"}]
        answer = await g.openai.chat.completions.create(model="X", messages=messages)
        assert answer.choices[0].message.content == "Done."
    assert outputs(agent)[-1] == ("cat: a.txt: No such file or directory" if deleted else "hello")
    assert not list(workspaces.iterdir())


class Recorder:
    """Denies `exec_command`, and records the calls."""

    calls: list[ToolCall]

    def __init__(self, *_):
        type(self).calls = []

    @hookimpl
    async def authorize_tool(self, run, tool):
        return Decision(tool.name != "exec_command", "test", reason="not here")

    @hookimpl
    def on_tool_end(self, call):
        self.calls.append(call)


async def test_policies_apply_to_the_tools_of_a_sandbox(workspaces):
    agent = worker(run("touch a.txt"), "I may not.")
    async with gateway_in_memory({"X": agent}, plugins={"policy": Recorder}, config=settings()) as g:
        assert await ask(g, "chat") == "I may not."
        assert not list(workspaces.rglob("*.txt"))
    [recorded] = Recorder.calls
    assert (recorded.tool.name, recorded.tool.source, recorded.outcome) == ("exec_command", "sdk-native", "refused")
    assert "not here" in agent.model.calls[-1].input[-1]["output"]


@pytest.mark.parametrize(
    "rules",
    [
        {"native_tools": "refuse"},
        {"deny_tools": ["exec_command"]},
        {"block_tools": ["sdk-native:exec_command"]},
        {"closed_tools": ["sdk-native"]},
    ],
)
async def test_rules_of_the_operator_apply_to_the_tools_of_a_sandbox(rules, workspaces):
    agent = worker(run("touch a.txt"), "I may not.")
    config = {**settings(), "plugins": {"security": {"rules": {"agents": ["X"], **rules}}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        assert await ask(g, "chat") == "I may not."
    assert "may not be called" in agent.model.calls[-1].input[-1]["output"]


@pytest.mark.parametrize("allowed", [True, False])
async def test_rules_apply_to_the_patch_editor_of_a_sandbox(allowed, workspaces):
    patch = "*** Begin Patch\n*** Add File: a.txt\n+hello\n*** End Patch"
    edit = ResponseCustomToolCall(type="custom_tool_call", name="apply_patch", call_id="call_patch", input=patch)
    agent = SandboxAgent(name="x", model=ScriptedModel([[edit], [assistant_message("Done.")]]))
    rules = {"agents": ["X"], "deny_tools": [] if allowed else ["apply_patch"]}
    async with gateway_in_memory({"X": agent}, config={**settings(), "plugins": {"security": {"rules": rules}}}) as g:
        body = {"model": "X", "messages": HI}
        answer = await g.http.post("/v1/chat/completions", json=body, headers={"x-agent-gateway-session": "chat"})
        assert answer.status_code == (200 if allowed else 403)
        assert [file.read_text() for file in workspaces.rglob("a.txt")] == (["hello"] if allowed else [])


async def test_a_client_that_blocks_does_not_block_the_event_loop(workspaces, monkeypatch):
    class Blocking(UnixLocalSandboxClient):
        async def create(self, **options):
            time.sleep(0.5)
            return await super().create(**options)

        async def delete(self, session):
            time.sleep(0.5)
            return await super().delete(session)

    monkeypatch.setattr("gateway_core.sdk.sandbox_clients.is_blocking", lambda name: True)
    monkeypatch.setattr("gateway_core.sdk.sandbox_clients.create_client", lambda name: Blocking())
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    agent = worker(run("echo hello"), "Done.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        ticking = asyncio.create_task(tick())
        assert await ask(g) == "Done."
        before, ticks = ticks, 0
        await until_empty(workspaces)
        ticking.cancel()
    assert outputs(agent) == ["hello"]
    assert before > 10
    assert ticks > 10


async def test_a_client_that_disconnects_leaves_the_workspace_to_the_chat(workspaces):
    agent = worker(run("touch a.txt; while [ ! -e ../stop ]; do sleep 0.02; done"), run("ls"), "Done.")
    async with gateway_in_memory({"X": agent}, config=settings()) as g:
        first = asyncio.create_task(ask(g, "chat"))
        async with asyncio.timeout(20):
            while not list(workspaces.rglob("a.txt")):
                await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        (workspaces / "stop").touch()
        assert await ask(g, "chat") == "Done."
        assert outputs(agent) == ["a.txt"]


async def test_a_workflow_can_bring_its_own_sandbox(workspaces):
    agent = worker(run("echo hello"), "Done.")

    async def workflow(text: str) -> str:
        config = RunConfig(sandbox=SandboxRunConfig(client=UnixLocalSandboxClient()))
        return (await Runner.run(agent, text, run_config=config)).final_output

    own = RunConfig(sandbox=SandboxRunConfig(client=UnixLocalSandboxClient()))
    nested = worker(run("echo nested"), "Nested.", name="nested")
    outer = Agent(
        name="x",
        model=script(call("ask", input="x"), "Asked."),
        tools=[nested.as_tool("ask", "Ask.", run_config=own)],
    )
    async with gateway_in_memory({"X": workflow, "Y": outer}) as g:
        assert await ask(g) == "Done."
        assert await ask(g, model="Y") == "Asked."
    assert (outputs(agent), outputs(nested)) == (["hello"], ["nested"])


async def test_a_sandbox_that_cannot_be_started_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    async with gateway_in_memory({"X": worker("Never.")}, config=settings()) as g:
        answer = await g.http.post("/v1/chat/completions", json={"model": "X", "messages": HI})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "sandbox_unavailable"
    assert "absent" not in answer.text


async def test_without_a_sandbox_the_agent_is_refused_with_the_cure():
    sandboxed = worker("x")
    agents = {
        "Itself": sandboxed,
        "Built": lambda: worker("x"),
        "Handoff": Agent(name="x", handoffs=[sandboxed]),
        "Tool": Agent(name="x", tools=[sandboxed.as_tool("ask", "Ask.")]),
    }
    async with gateway_in_memory(agents) as g:
        broken = g.gateway.catalog.broken
        assert set(broken) == set(agents)
        for each in broken.values():
            assert each.error.code == "sandbox"
            assert '[runs.sandbox]\nclient = "docker"\noptions = { image = "python:3.12-slim" }\n' in each.error.hint


async def test_a_run_of_a_workflow_without_a_sandbox_has_a_clear_error():
    agent = worker("x")

    async def workflow(text: str) -> str:
        return (await Runner.run(agent, text)).final_output

    async with gateway_in_memory({"X": workflow}) as g:
        answer = await g.http.post("/v1/chat/completions", json={"model": "X", "messages": HI})
        assert answer.json()["error"]["message"].startswith("the agent works in a sandbox, and none is configured")


async def test_settings_that_only_responses_upstreams_know_are_not_sent_to_others():
    with FakeUpstream() as upstream:
        upstreams = {"up": {"base_url": upstream.base_url, "default_model": "m", "max_retries": 0}}
        config = {**settings(), "plugins": {"upstreams": upstreams}}
        async with gateway_in_memory({"X": SandboxAgent(name="x")}, config=config) as g:
            messages = [{"role": "user", "content": 'call exec_command {"cmd": "echo hello"}'}]
            answer = await g.openai.chat.completions.create(model="X", messages=messages)
            assert answer.choices[0].message.content.endswith("hello\n")
        bodies = [record.request.body for record in upstream.records if record.request.body]
        assert len(bodies) == 2
        assert not any("context_management" in body for body in bodies)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"client": "modal"}, '[runs.sandbox] client: the package of "modal" is not installed (run: pip install'),
        ({"client": "local", "options": {"imag": "x"}}, '[runs.sandbox.options] imag: unknown option of "local"'),
        ({"client": "nowhere"}, "one of: docker, local"),
        ({"client": "local", "max_workspaces": 0}, "[runs.sandbox] max_workspaces: must be at least 1"),
        ({"client": "local", "options": {"exposed_ports": {"env": "NOT_SET"}}}, "variable NOT_SET is not set"),
    ],
)
def test_invalid_settings_name_the_key_and_the_cure(table, message):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides={"runs": {"sandbox": table}}, environ={})
    assert message in str(caught.value)


async def test_an_agent_is_loaded_when_a_sandbox_is_configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents" / "X").mkdir(parents=True)
    text = "from agents.sandbox import SandboxAgent\nagent = SandboxAgent(name='x')"
    (tmp_path / "agents" / "X" / "agent.py").write_text(text)
    file = tmp_path / "gateway.toml"
    file.write_text("[plugins.upstreams]\nenabled = false\n")
    async with RunningGateway(load_config(file, environ={})) as gateway:
        assert gateway.catalog.broken["X"].error.code == "sandbox"
        file.write_text(f'{file.read_text()}[runs.sandbox]\nclient = "local"\n')
        assert "X" in (await gateway.reload()).agents
        file.write_text(file.read_text().replace("local", "modal"))
        assert "X" in (await gateway.reload()).agents
        assert "is not installed" in str(gateway.reconfigurer.error)
