"""Hook results are combined as specified, and a plugin that violates a hook's contract is rejected."""

import asyncio
import contextlib

import pytest

import gateway_core.hooks.dispatch as hooks_module
from gateway_core.errors import ConfigError, DiscoveryError, PluginError, UnavailableError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import gateway_in_memory
from gateway_core.types import AgentEntry, Decision, Outcome, Principal, RunContext, Usage

ANN = Principal("ann")
ENTRY = AgentEntry("Agent", "here", "d", lambda: None)


def plugin(**hooks):
    """A plugin with the given hook implementations."""
    return type("Plugin", (), {name: hookimpl(function) for name, function in hooks.items()})()


def hooks(*plugins):
    return Hooks({f"p{i}": each for i, each in enumerate(plugins)})


def deciding(decision):
    async def authorize(self, principal, entry):
        if isinstance(decision, Exception):
            raise decision
        return decision

    return plugin(authorize=authorize)


YES, NO = Decision(True, "yes"), Decision(False, "no")


@pytest.mark.parametrize(
    ("decisions", "allowed"),
    [
        ([], True),
        ([None], False),
        ([YES], True),
        ([NO], False),
        ([YES, NO], False),
        ([NO, YES], False),
        ([None, YES], True),
        ([YES, None], True),
        ([YES, RuntimeError("broken")], False),
        ([RuntimeError("broken"), YES], False),
    ],
)
async def test_authorize_requires_agreement_of_all_policies_that_do_not_abstain(decisions, allowed):
    decision = await hooks(*map(deciding, decisions)).authorize(ANN, ENTRY)
    assert decision.allowed is allowed


async def test_the_first_principal_authenticates():
    async def abstain(self, request):
        return None

    async def ann(self, request):
        return ANN

    async def bob(self, request):
        raise AssertionError("must not be called")

    dispatched = hooks(plugin(authenticate=abstain), plugin(authenticate=ann), plugin(authenticate=bob))
    assert await dispatched.authenticate(None) is ANN


def test_plugins_are_called_in_the_order_of_the_configuration():
    dispatched = hooks(plugin(watch_paths=lambda self: ["a"]), plugin(watch_paths=lambda self: ["b", "c"]))
    assert dispatched.watch_paths() == ["a", "b", "c"]


def test_wrap_tool_passes_the_result_to_the_next_plugin():
    wrapping = hooks(
        plugin(wrap_tool=lambda self, tool, entry: tool + "1"),
        plugin(wrap_tool=lambda self, tool: None),
        plugin(wrap_tool=lambda self, entry, tool: tool + entry.id),
    )
    assert wrapping.wrap_tool("tool", ENTRY) == "tool1Agent"


def test_the_first_model_provider_is_used():
    dispatched = hooks(plugin(model_provider=lambda self: None), plugin(model_provider=lambda self, run: run.agent_id))
    assert dispatched.model_provider(RunContext("r", ANN, "Agent"), ENTRY) == "Agent"


def test_notifications_reach_every_plugin_although_one_raises(caplog):
    received = []

    def broken(self, run, outcome):
        raise RuntimeError("broken listener")

    listening = hooks(plugin(on_run_end=broken), plugin(on_run_end=lambda self, run, outcome: received.append(outcome)))
    outcome = Outcome(1.0, Usage())
    listening.on_run_end(RunContext("r", ANN, "Agent"), outcome)
    assert received == [outcome]
    assert "plugin p0 failed in on_run_end" in caplog.text


def test_an_exception_in_discovery_does_not_affect_other_plugins():
    def broken(self):
        raise RuntimeError("no disk")

    reported = []
    found = hooks(plugin(discover_agents=broken), plugin(discover_agents=lambda self: [ENTRY]))
    assert found.discover_agents(reported.append) == [ENTRY]
    assert isinstance(reported[0], PluginError)
    assert "p0" in str(reported[0])


def test_a_gateway_error_in_discovery_is_reported_unchanged():
    refusal = DiscoveryError("refused")

    def refuse(self):
        raise refusal

    reported = []
    hooks(plugin(discover_agents=refuse)).discover_agents(reported.append)
    assert reported == [refusal]


def test_describe_is_by_plugin_and_shows_exceptions():
    def broken(self):
        raise RuntimeError

    described = hooks(plugin(describe=lambda self: {"a": 1}), plugin(describe=broken)).describe()
    assert described == {"p0": {"a": 1}, "p1": {"error": "RuntimeError"}}


def test_a_misspelled_hook_is_rejected_with_a_suggestion():
    with pytest.raises(PluginError, match=r"unknown hook 'discover_agent' .did you mean 'discover_agents'"):
        hooks(plugin(discover_agent=lambda self: []))


def test_an_unknown_argument_is_rejected():
    with pytest.raises(PluginError, match="p0"):
        hooks(plugin(authorize=lambda self, user: None))


def test_a_sync_implementation_of_an_async_hook_is_rejected():
    with pytest.raises(PluginError, match="must be defined with `async def`"):
        hooks(plugin(authorize=lambda self, principal, entry: YES))


def test_the_hooks_of_a_plugin_are_listed():
    assert hooks(plugin(on_error=lambda self, error: None)).implemented_by("p0") == ["on_error"]


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr(hooks_module, "HOOK_SECONDS", 0.05)


class Hanging:
    """Never returns."""

    @hookimpl
    async def authorize(self, principal, entry):
        await asyncio.Event().wait()

    @hookimpl
    async def authenticate(self, request):
        await asyncio.Event().wait()

    @hookimpl
    async def readiness(self):
        await asyncio.Event().wait()


async def test_a_plugin_that_hangs_denies_access(short_timeout):
    hooks = Hooks({"hanging": Hanging()})
    async with asyncio.timeout(10):
        decision = await hooks.authorize(Principal("ann"), None)
        assert (decision.allowed, decision.source) == (False, "hanging")
        with pytest.raises(UnavailableError, match="authentication is temporarily unavailable"):
            await hooks.authenticate(None)
        assert [(check.name, check.ok) for check in await hooks.readiness()] == [("hanging", False)]


async def test_a_timeout_error_raised_by_a_plugin_is_not_a_hook_timeout(short_timeout):
    class Own:
        @hookimpl
        async def authenticate(self, request):
            raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Hooks({"own": Own()}).authenticate(None)


STARTUP = {
    "lifespan": "cannot be started: OSError: [Errno 13] Permission denied: '/x' and more",
    "middleware": "failed in middleware: PermissionError",
    "routes": "failed in routes: PermissionError",
    "trace_processors": "failed in trace_processors: PermissionError",
    "constructor": "cannot be started: PermissionError",
}


@pytest.mark.parametrize("hook", STARTUP)
async def test_an_exception_at_startup_is_one_line_with_the_plugins_name(hook):
    def fail(*_):
        raise OSError(13, "Permission denied", "/x") from None

    class Failing:
        def __init__(self, *_):
            if hook == "constructor":
                fail()

    @contextlib.asynccontextmanager
    async def lifespan(self):
        raise OSError("[Errno 13] Permission denied:\n'/x' and more")
        yield

    if hook != "constructor":
        setattr(Failing, hook, hookimpl(lifespan if hook == "lifespan" else lambda self: fail()))
    with pytest.raises(PluginError) as caught:
        async with gateway_in_memory({}, plugins={"theirs": Failing}):
            pass
    assert str(caught.value).startswith(f"plugin theirs: {STARTUP[hook]}")
    assert "enabled = false" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [SystemExit("bye"), asyncio.CancelledError("bye"), RuntimeError("bye")])
@pytest.mark.parametrize(("place", "text"), [("start", "cannot be started"), ("shutdown", "failed at shutdown")])
async def test_a_plugin_that_exits_or_fails_in_its_lifespan_is_one_line(place, text, error):
    class Theirs:
        def __init__(self, *_):
            pass

        @hookimpl
        @contextlib.asynccontextmanager
        async def lifespan(self):
            if place == "start":
                raise error
            yield
            raise error

    with pytest.raises(PluginError) as caught:
        async with gateway_in_memory({}, plugins={"theirs": Theirs}):
            assert place == "shutdown"
    assert str(caught.value).startswith(f"plugin theirs: {text}: {type(error).__name__}: bye (")


async def test_a_plugin_that_exits_when_it_is_created_is_one_line():
    class Theirs:
        def __init__(self, *_):
            raise SystemExit("bye")

    with pytest.raises(PluginError, match="plugin theirs: cannot be started: SystemExit: bye"):
        async with gateway_in_memory({}, plugins={"theirs": Theirs}):
            pass


async def test_a_settings_error_in_a_task_group_of_a_lifespan_remains_a_settings_error():
    async def fail():
        raise ConfigError("no", source="[plugins.theirs] key", hint="do")

    class Theirs:
        def __init__(self, *_):
            pass

        @hookimpl
        @contextlib.asynccontextmanager
        async def lifespan(self):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
            yield

    with pytest.raises(ConfigError, match="no"):
        async with gateway_in_memory({}, plugins={"theirs": Theirs}):
            pass
