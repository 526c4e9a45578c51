"""Functions of a script can serve a chat, depending on the order of their runs and `input()` calls."""

import linecache
import textwrap
from types import ModuleType

import pytest

from gateway_core.catalog.script_analysis import Script

HELPERS = """
async def ask(agent, text):
    result = await Runner.run(agent, text)
    return result.final_output


def read():
    return input("> ")


class Desk:
    async def write(self, facts):
        return await Runner.run(self.writer, facts)
"""


def script(source: str) -> Script:
    name = f"<script {abs(hash(source))}>"
    text = textwrap.dedent(source)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module = ModuleType("script")
    module.__file__ = name
    return Script(module)


def plan(body: str):
    return script(HELPERS + "\n\nasync def main():\n" + textwrap.indent(textwrap.dedent(body), "    ")).plan("main")


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        ("result = await Runner.run(agent, 'text')", 1),
        ("Runner.run_sync(agent, 'text')", 1),
        ("result = Runner.run_streamed(agent, input='text')", 1),
        ("await run_demo_loop(agent)", 1),
        ("await ask(agent, 'text')", 1),
        ("await ask(agent, input('> '))", 1),
        ("while True:\n    await ask(agent, read())", 1),
        ("while True:\n    text = input('> ')\n    result = await Runner.run(agent, text)", 1),
        ("while True:\n    result = await Runner.run(agent, items)\n    items.append(input('> '))", 1),
        ("text = await asyncio.to_thread(input, '> ')\nawait Runner.run(agent, text)", 1),
        ("text = input('> ')\nwhile True:\n    await Runner.run(agent, text)\n    text = input('> ')", 1),
        ("a = await Runner.run(one, 'text')\nb = await Runner.run(two, a.final_output)", 2),
        ("a = await ask(one, 'text')\nfacts = f'Facts: {a}'\nawait Desk().write(facts)", 2),
        ("a = await Runner.run(one, 'text')\nitems.append(a.final_output)\nb = await Runner.run(two, items)", 2),
        ("a, b = await asyncio.gather(Runner.run(one, text), Runner.run(two, text))", 2),
        ("if x:\n    await Runner.run(one, 'a')\nelse:\n    await Runner.run(two, 'b')", 2),
        ("plan = await ask(one, 'x')\nfound = [await Runner.run(two, item) for item in plan.items]", 2),
        ("text = 'x'\nwhile bad:\n    a = await Runner.run(one, text)\n    text = a.final_output", 2),
        ("async with server() as s:\n    await Runner.run(agent, 'text')", 1),
        ("try:\n    await Runner.run(agent, 'text')\nexcept Exception as error:\n    print(error)", 1),
    ],
)
def test_a_script_with_one_message_can_serve_a_chat(body, runs):
    found = plan(body)
    assert (found.obstacle, found.runs) == (None, runs)


@pytest.mark.parametrize(
    ("body", "obstacle"),
    [
        ("await Runner.run(one, 'a')\nawait Runner.run(one, 'b')", "a further run with its own text"),
        ("await ask(one, 'a')\nawait ask(one, 'b')", "a further run with its own text"),
        ("for text in ('a', 'b'):\n    await Runner.run(one, text)", "a further run with its own text"),
        ("await asyncio.gather(*[Runner.run(one, text) for text in texts])", "a further run with its own text"),
        ("name = input('Name: ')\nawait Runner.run(one, input('> '))", "calls input() in several places"),
        ("name, text = read(), read()\nawait Runner.run(one, text)", "calls input() in several places"),
        ("name = input('Name: ')\nwhile True:\n    await Runner.run(one, read())", "calls input() in several places"),
        (
            "a = await Runner.run(one, 'a')\nif input('ok?') == 'y':\n    await Runner.run(two, a)",
            "calls input() after a run",
        ),
        ("await Runner.run(one, sys.argv[1])", "reads the command line"),
        ("given = argparse.ArgumentParser().parse_args()\nawait Runner.run(one, given.text)", "reads the command line"),
    ],
)
def test_a_script_that_needs_more_than_one_message_is_not_served_by_itself(body, obstacle):
    assert obstacle in (plan(body).obstacle or "")


def test_a_parameter_with_the_name_input_is_not_the_function():
    source = "async def ask(input):\n    return await Runner.run(a, input)\n\n\nasync def main():\n    await ask('x')\n"
    assert script(source).plan("main").obstacle is None


def test_functions_that_call_each_other_are_followed_once():
    source = "def main():\n    other()\n    Runner.run_sync(a, 'x')\n\n\ndef other():\n    main()\n"
    assert script(source).plan("main").runs == 1


def test_a_script_without_source_has_no_functions():
    assert Script(ModuleType("nothing")).functions == {}


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("asyncio.run(start())", "start"),
        ("start()", "start"),
        ("asyncio.run(start('text'))", "main"),
        ("start()\n    other()", "main"),
        ("print()", "main"),
    ],
)
def test_the_main_function_is_the_one_that_the_main_block_calls(block, name):
    source = "def start():\n    Runner.run_sync(a, 'x')\n\n\ndef other():\n    Runner.run_sync(b, 'x')\n\n\n"
    assert script(f"{source}if __name__ == '__main__':\n    {block}\n").main() == name
    assert script(f"{source}def main():\n    pass\n\n\nif __name__ == '__main__':\n    {block}\n").main() == "main"


def test_a_factory_that_another_one_calls_is_not_the_one_to_serve():
    source = "def one():\n    return Agent(name='1')\n\n\ndef two():\n    return Agent(name='2', handoffs=[one()])\n"
    assert script(source).factories() == ["two"]
