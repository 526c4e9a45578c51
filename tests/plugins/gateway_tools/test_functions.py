"""Functions as tools: from installed modules, from files in a folder, and built-in ones."""

import sys
import types
from datetime import datetime

import pytest
from agents import Agent
from gateway_plugins.gateway_tools.builtin import calculate, current_time

from gateway_core import use_gateway_tool
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.testing import call, gateway_in_memory, script


async def call_it(name, tables, **arguments):
    """Return the output of a gateway tool that the model reads, and the gateway's tools."""
    model = script(call(name.replace("/", "__"), **arguments), "done")
    agents = {"X": Agent(name="x", tools=[use_gateway_tool(name)])}
    async with gateway_in_memory(agents, model=model, config={"plugins": {"gateway_tools": tables}}) as g:
        assert not g.gateway.catalog.broken, g.gateway.catalog.broken
        await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
        tools = {tool["name"]: tool for tool in g.gateway.tools()}
    [item] = [i for i in model.calls[-1].input if i.get("type") == "function_call_output"]
    return item["output"], tools


FILE = '''
from _shared import prefix

def send(to: str, copies: int = 1) -> str:
    """Send a letter.

    Args:
        to: Who gets it.
    """
    return f"{prefix()} {to} x{copies}"

def helper(text):
    return text

def _private(text: str) -> str:
    """Hidden."""
    return text

from os.path import join
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "smtp.py").write_text(FILE)
    (tmp_path / "_shared.py").write_text("def prefix(): return 'to'\n")
    (tmp_path / "quick.py").write_text(
        "from agents import function_tool\n\n@function_tool\n"
        "async def quick(a: int) -> int:\n    'Quick.'\n    return a + 1\n"
    )
    return tmp_path


async def test_public_functions_with_a_docstring_are_tools(folder):
    answer, tools = await call_it("mail/send", {"path": str(folder), "builtin": False}, to="Ada")
    assert answer == "to Ada x1"
    assert set(tools) == {"mail/send", "quick"}
    listed = tools["mail/send"]
    assert listed["description"] == "Send a letter."
    assert listed["parameters"]["properties"]["to"]["description"] == "Who gets it."
    assert (listed["source"], listed["agents"]) == ("gateway", ["X"])
    assert (await call_it("quick", {"path": str(folder)}, a=1))[0] == "2"


async def test_a_changed_file_is_reloaded_and_a_broken_one_keeps_its_tools(folder):
    agent = Agent(name="x", tools=[use_gateway_tool("mail/send")])
    model = script(*[call("mail__send", to="Ada"), "done"] * 4)
    tables = {"plugins": {"gateway_tools": {"path": str(folder)}}}
    file = folder / "mail" / "smtp.py"

    async def ask(g):
        await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
        return model.calls[-1].input[-1]["output"]

    async with gateway_in_memory({"X": agent}, model=model, config=tables) as g:
        assert await ask(g) == "to Ada x1"
        [bound] = agent.tools
        (folder / "_shared.py").write_text("def prefix(): return 'now to'\n")
        await g.gateway.reload()
        assert await ask(g) == "now to Ada x1"
        assert agent.tools[0] is bound
        file.write_text("raise SystemExit(3)\n")
        await g.gateway.reload()
        await g.gateway.reload()
        assert await ask(g) == "now to Ada x1"
        errors = (await g.http.get("/admin/agents/errors")).json()["errors"]
        assert [(e["source"], e["code"]) for e in errors] == [(f"{file}:1", "plugin_failed")]
        assert "previous tools stay active" in errors[0]["hint"]
        file.write_text(FILE.replace("x{copies}", "again"))
        await g.gateway.reload()
        assert await ask(g) == "now to Ada again"


async def test_a_broken_file_does_not_affect_other_tools(folder):
    (folder / "bad.py").write_text("def x(:\n")
    answer, _ = await call_it("mail/send", {"path": str(folder)}, to="Ada")
    assert answer == "to Ada x1"


async def test_the_reason_for_a_function_that_is_not_a_tool(tmp_path, caplog):
    caplog.set_level("INFO", "gateway_plugins.gateway_tools")
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "clock.py").write_text(
        "import threading\n"
        "def bare(text: str) -> str:\n    return text\n"
        "def odd(lock: threading.Lock) -> str:\n    'Odd.'\n    return ''\n"
        "def good() -> str:\n    'Good.'\n    return 'g'\n"
    )
    (tmp_path / "bad.py").write_text("import nothere_of_test\ndef later():\n    'Later.'\n")
    wanted = ("mail/bare", "mail/odd", "later", "nowhere", "mail/good")
    agents = {name.replace("/", "_"): Agent(name="x", tools=[use_gateway_tool(name)]) for name in wanted}
    config = {"plugins": {"gateway_tools": {"path": str(tmp_path)}}}
    async with gateway_in_memory(agents, model=script(), config=config) as g:
        broken = {name: failure.error.message for name, failure in g.gateway.catalog.broken.items()}
        skipped = g.gateway.hooks.describe()["gateway_tools"]["skipped"]
    assert "clock.py: the function bare has no docstring" in broken["mail_bare"]
    assert "clock.py: the signature of odd has no JSON schema" in broken["mail_odd"]
    assert "bad.py cannot be imported: ModuleNotFoundError" in broken["later"]
    assert broken["nowhere"] == "unknown gateway tool 'nowhere'"
    assert "mail_good" not in broken
    assert set(skipped) == {"mail/bare", "mail/odd"}
    assert "the function bare has no docstring" in caplog.text


async def test_a_link_to_a_target_outside_the_folder_is_not_followed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "evil.py"
    outside.write_text("def evil() -> str:\n    'Evil.'\n    return ''\n")
    (folder / "evil.py").symlink_to(outside)
    _, tools = await call_it("quick", {"path": str(folder)}, a=1)
    assert "evil" not in tools


async def test_a_function_of_an_installed_module(monkeypatch):
    module = types.ModuleType("company_tools")

    def look_up(number: str) -> str:
        """Look up a customer."""
        return f"customer {number}"

    module.look_up, module.namespace = look_up, types.SimpleNamespace(free=lambda data: None)
    monkeypatch.setitem(sys.modules, "company_tools", module)
    table = {"kind": "python", "function": "company_tools:look_up", "open": False}
    tables = {"crm/customer": table}
    answer, tools = await call_it("crm/customer", tables, number="7")
    assert answer == "The tool crm/customer may not be called: no policy allows it."
    assert tools["crm/customer"]["open"] is False
    tables = {"crm/customer": {**table, "open": True, "description": "Other words."}}
    answer, tools = await call_it("crm/customer", tables, number="7")
    assert answer == "customer 7"
    assert tools["crm/customer"]["description"] == "Other words."


@pytest.mark.parametrize("function", ["no_such_module:x", "math:nope", "math", "math:pi"])
async def test_a_missing_function_is_reported_and_the_other_tools_are_offered(function):
    tables = {"plugins": {"gateway_tools": {"bad": {"kind": "python", "function": function}}}}
    async with gateway_in_memory({"X": Agent(name="x")}, config=tables) as g:
        [error] = (await g.http.get("/admin/agents/errors")).json()["errors"]
        assert error["source"].endswith(": [plugins.gateway_tools.bad] function")
        assert "calculate" in {tool["name"] for tool in g.gateway.tools()}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"x": {"kind": "python"}}, "required key is missing"),
        ({"x": {"kind": "shell"}}, "one of: python, http"),
        ({"x": {}}, "kind: required key is missing"),
        ({"x y": {"kind": "python", "function": "a:b"}}, "invalid tool name"),
        ({"x": {"kind": "python", "function": "a:b", "functoin": ""}}, "did you mean 'function'?"),
        ({"pth": "x"}, "did you mean 'path'?"),
    ],
)
def test_an_invalid_table_is_rejected(table, message):
    with pytest.raises(ConfigError) as caught:
        load_plugins(load_config(environ={}, overrides={"plugins": {"gateway_tools": table}}), NullGateway())
    assert message in str(caught.value)


async def test_a_configured_tool_replaces_a_built_in_one(tmp_path):
    (tmp_path / "own.py").write_text("def calculate(expression: str) -> str:\n    'Own.'\n    return 'own'\n")
    assert (await call_it("calculate", {"path": str(tmp_path)}, expression="1"))[0] == "own"
    assert (await call_it("calculate", {}, expression="6*7"))[0] == "42"


def test_current_time():
    assert datetime.strptime(current_time(), "%A, %Y-%m-%d %H:%M:%S UTC")
    for name in ("Nowhere", "../../etc/passwd", "", "a\0b"):
        assert current_time(name).startswith("Unknown time zone")


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("1 + 2 * 3", "7"),
        ("(1+2)*3", "9"),
        ("2**10", "1024"),
        ("-7 // 2", "-4"),
        ("sqrt(16) + max(1, 2)", "6.0"),
        ("round(10 / 3, 2)", "3.33"),
        ("1/0", "The expression could not be evaluated: ZeroDivisionError."),
        ("9**9**9", "The expression could not be evaluated: OverflowError."),
        ("10**900 * 10**900", "The expression could not be evaluated: OverflowError."),
        ("__import__('os')", "The expression could not be evaluated: ValueError."),
        ("(1).__class__", "The expression could not be evaluated: ValueError."),
        ("'a' * 9", "The expression could not be evaluated: ValueError."),
        ("[1]", "The expression could not be evaluated: ValueError."),
        ("True", "The expression could not be evaluated: ValueError."),
        ("1 +", "The expression could not be evaluated: SyntaxError."),
        ("(-1) ** 0.5", "The expression could not be evaluated: ValueError."),
        ("-" * 499 + "1", "The expression could not be evaluated: ValueError."),
        ("1" * 501, "The expression is longer than 500 characters."),
    ],
)
def test_calculate(expression, answer):
    assert calculate(expression) == answer
