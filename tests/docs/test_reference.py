"""Compares the documentation with the code: settings, hooks, errors, plugins, fields, exported names and links."""

import inspect
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import attrs
import pytest

import gateway_core
from gateway_core import Gateway, errors
from gateway_core.config.settings import (
    AgentConfig,
    CatalogConfig,
    HttpConfig,
    RunsConfig,
    SandboxConfig,
    ServerConfig,
    load_config,
)
from gateway_core.hooks.dispatch import hook_names
from gateway_core.hooks.specs import Hookspecs

ROOT = Path(__file__).parents[2]
CORE = ROOT / "gateway_core"
DOCS = ROOT / "docs"
PAGES = [*DOCS.rglob("*.md"), ROOT / "README.md", *ROOT.glob(".github/*.md"), ROOT / "agents_pkg" / "README.md"]
PLUGINS = {
    point.name: point
    for point in entry_points(group="agent_gateway.plugins")
    if point.dist is not None and point.dist.name == "agent-gateway"
}


def read(*path: str) -> str:
    return DOCS.joinpath(*path).read_text()


def first_column(text: str, heading: str) -> list[str]:
    """The first column of the table below a heading."""
    section = re.split(r"^#+ ", text.partition(heading)[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("table", "cls"),
    [
        ("[server]", ServerConfig),
        ("[http]", HttpConfig),
        ("[catalog]", CatalogConfig),
        ("[runs]", RunsConfig),
        ("[runs.sandbox]", SandboxConfig),
        ("[agents.NAME]", AgentConfig),
    ],
)
def test_every_core_setting_is_in_the_reference(table, cls):
    text = read("reference", "config.md")
    assert first_column(text, f"## `{table}`") == [
        field.name for field in attrs.fields(cls) if not attrs.has(field.type)
    ]


def test_the_defaults_in_the_reference_match_the_code():
    text = read("reference", "config.md")
    tables = load_config(environ={}).tables
    for table, settings in {**tables, "runs.sandbox": tables["runs"].pop("sandbox")}.items():
        if table in ("plugins", "agents"):
            continue
        section = text.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
        for key, value in settings.items():
            written = re.search(rf"^\| `{key}` \| `([^`]*)` \|", section, re.MULTILINE)
            assert written, f"[{table}] {key}"
            assert tomllib.loads(f"value = {written[1]}")["value"] == value, f"[{table}] {key}"


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_has_a_page_that_lists_its_settings(name):
    page = read("plugins", f"{name}.md")
    assert page.startswith(f"# {name}\n")
    settings = getattr(PLUGINS[name].load(), "Config", None)
    own = (
        [field.name for field in attrs.fields(settings) if field.name not in ("upstreams", "tools", "servers")]
        if settings
        else []
    )
    assert first_column(page, "## Settings")[: len(own)] == own
    introduction = page.partition("\n\n")[2].partition("\n\n")[0]
    assert introduction.endswith((".", ":")), "the page begins with what the plugin does"


def test_every_setting_of_an_upstream_is_on_its_page():
    from gateway_plugins.upstreams.settings import Upstream

    listed = first_column(read("plugins", "upstreams.md"), "For each `[plugins.upstreams.NAME]`")
    assert listed == [field.name for field in attrs.fields(Upstream)]


@pytest.mark.parametrize("kind", ["python", "http"])
def test_every_setting_of_a_gateway_tool_is_on_its_page(kind):
    from gateway_plugins.gateway_tools.settings import HttpTool, PythonTool

    cls = {"python": PythonTool, "http": HttpTool}[kind]
    assert first_column(read("plugins", "gateway_tools.md"), f'With `kind = "{kind}"`') == [
        field.name for field in attrs.fields(cls)
    ]


def test_every_setting_of_an_mcp_server_is_on_its_page():
    from gateway_plugins.mcp_tools.settings import McpServer, OAuth

    page = read("plugins", "mcp_tools.md")
    assert first_column(page, "### For each server") == [field.name for field in attrs.fields(McpServer)]
    assert first_column(page, "### With `oauth`") == [field.name for field in attrs.fields(OAuth)]


def test_every_hook_is_in_the_reference_with_its_arguments():
    text = read("reference", "hooks.md")
    documented = re.findall(r"^### (async )?`(\w+)\(([^)]*)\)`", text, re.MULTILINE)
    assert [name for _, name, _ in documented] == hook_names()
    for is_async, name, arguments in documented:
        function = getattr(Hookspecs, name)
        parameters = [p for p in inspect.signature(function).parameters if p != "self"]
        assert [a.strip() for a in arguments.split(",") if a.strip()] == parameters, name
        assert bool(is_async) is inspect.iscoroutinefunction(function), name


def every_error() -> list[type[errors.GatewayError]]:
    return [
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.GatewayError)
    ]


def test_every_error_is_in_the_reference_with_status_and_code():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| `(\w+)` \|", read("reference", "errors.md"), re.MULTILINE)
    assert rows == [(e.__name__, str(e.default_status), e.kind, e.default_code) for e in every_error()]


def test_every_specific_code_is_in_the_reference():
    text = read("reference", "errors.md")
    sources = [*ROOT.glob("gateway_core/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    given = {code for source in sources for code in re.findall(r'\bcode="(\w+)"', source.read_text())}
    assert given
    assert not [code for code in sorted(given) if f"`{code}`" not in text]


def test_the_tree_in_the_docstring_matches_the_classes():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert sorted(drawn) == sorted(e.__name__ for e in every_error() if e is not errors.GatewayError)


def test_every_link_between_pages_has_a_target():
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_tests_that_the_documentation_names_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read("reliability.md"))
    assert named
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (DOCS.parent / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_modules_that_the_architecture_names_exist():
    named = set(re.findall(r"(?<![\w/])(?:\w+/)+\w+\.py\b", read("architecture.md")))
    assert len(named) > 20
    assert not [name for name in sorted(named) if not any((base / name).is_file() for base in (ROOT, CORE))]


def test_the_architecture_draws_the_layers_that_are_checked():
    [drawn] = re.findall(
        r"```\n(.*?)```", read("architecture.md").partition("## Layers")[2].partition("\n## ")[0], re.DOTALL
    )
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert [re.split(r"\s{2,}", line)[0] for line in drawn.splitlines()] == layers


def test_the_plugin_api_page_lists_every_exported_name_once():
    listed = re.findall(r"^\| `(\w+)` \|", read("reference", "plugin-api.md"), re.MULTILINE)
    assert sorted(listed) == sorted(gateway_core.__all__)


def test_hooks_page_lists_the_members_of_the_gateway_protocol():
    listed = re.findall(r"^\| `(?:await )?(\w+)(?:\(.*?\))?` \|", read("reference", "hooks.md"), re.MULTILINE)
    assert listed == [name for name in vars(Gateway) if not name.startswith("_")]


def test_the_example_for_authors_passes(tmp_path):
    import subprocess
    import sys

    page = read("guides", "testing-agents.md")
    [conftest, test] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_example.py").write_text(test)
    files = re.findall(r"```py\n# (\S+)\n(.*?)```", page, re.DOTALL)
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [name for name, _ in files] == ["agents/Greeter/agent.py", "tools/badges.py", "tests/test_greeter.py"]
    for arguments, count in ([], 4), (["tests"], 2):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{count} passed" in done.stdout


def test_an_agent_that_cannot_be_loaded_fails_the_test_with_its_diagnosis(tmp_path):
    from gateway_core.errors import GatewayError
    from gateway_core.pytest_plugin import ServedForTest
    from gateway_core.testing import import_agent, script

    (tmp_path / "Bad.py").write_text("from agents import Agent\nagent = 1\n")
    with pytest.raises(GatewayError, match=r"no agent|exports"):
        ServedForTest(import_agent(tmp_path / "Bad.py"), script(), tmp_path)
    with pytest.raises(FileNotFoundError, match="no agent at"):
        import_agent(tmp_path / "Missing")


def test_the_agent_of_the_readme_is_served(tmp_path):
    import asyncio

    from gateway_core.testing import call, gateway_in_memory, script

    module, _ = re.findall(r"```python\n(from agents.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "Greeter").mkdir()
    (tmp_path / "Greeter" / "agent.py").write_text(module)

    async def ask() -> str:
        async with gateway_in_memory(folder=tmp_path, model=script(call("greet", name="Ada"), "Hello, Ada!")) as g:
            answer = await g.openai.chat.completions.create(
                model="Greeter", messages=[{"role": "user", "content": "greet Ada"}]
            )
            return answer.choices[0].message.content or ""

    assert asyncio.run(ask()) == "Hello, Ada!"


def test_both_kinds_of_tools_of_the_readme_work_in_one_agent(tmp_path):
    import asyncio

    from gateway_core.testing import call, gateway_in_memory, script

    _, module = re.findall(r"```python\n(from agents.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in module.splitlines() if line]) <= 10
    (tmp_path / "Weather.py").write_text(module)
    model = script([call("get_weather", city="Paris"), call("current_time", time_zone="Europe/Paris")], "done")

    async def ask() -> None:
        async with gateway_in_memory(folder=tmp_path, model=model) as g:
            await g.openai.chat.completions.create(model="Weather", messages=[{"role": "user", "content": "hi"}])

    asyncio.run(ask())
    weather, time = [str(item["output"]) for item in model.calls[1].input[-2:]]
    assert weather == "18 °C and sunny in Paris"
    assert re.search(r"\d{4}-\d\d-\d\d .* CES?T", time)


def test_every_route_is_in_the_reference():
    from gateway_core.app import build
    from gateway_core.config.settings import load_config
    from gateway_core.http.openapi.document import document

    written = re.findall(r"^\| `([A-Z]+ /\S*)` \|", read("reference", "http.md"), re.MULTILINE)
    paths = document(build(load_config(environ={})).routes, "x")["paths"]
    assert sorted(written) == sorted(
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    )
