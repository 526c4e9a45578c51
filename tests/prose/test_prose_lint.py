"""The prose linter finds a listed word wherever prose can stand, and nothing in clean text or in code."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_linter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose_lint", Path(__file__).with_name("prose_lint.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prose_lint"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


lint = load_linter()
RULES = lint.load_rules()

BAD_WORD = "mended"


def found(path: str, source: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.words) for finding in lint.check_source(path, source, RULES)]


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("gateway_core/a.py", f'"""Returns the {BAD_WORD} file."""\n', 1),
        ("gateway_core/a.py", f'def f():\n    """First.\n\n    Then it is {BAD_WORD}.\n    """\n', 4),
        ("gateway_core/a.py", f'x = (\n    "it was"\n    # why\n    " {BAD_WORD} again"\n)\n', 4),
        ("gateway_core/a.py", f'x = 1\n"""The {BAD_WORD} count."""\n', 2),
        ("gateway_core/a.py", f"x = 1  # the {BAD_WORD} value\n", 1),
        ("gateway_core/a.py", f'\nraise ValueError("the file was {BAD_WORD}")\n', 2),
        (
            "gateway_core/a.py",
            f'\nraise ValueError(\n    f"the file {{name!r}} is"\n    f" {BAD_WORD} in {{place}}"\n)\n',
            4,
        ),
        ("gateway_core/a.py", f"x = f\"the file {{'was ' + 'not {BAD_WORD}' if y else ''}}\"\n", 1),
        ("gateway_core/a.py", f'x = f"{{{{{{a:{{b}}}}}}}} was {BAD_WORD}"\n', 1),
        ("tests/test_a.py", f'def test():\n    """It is {BAD_WORD}."""\n', 2),
        ("tests/test_a.py", f"# It is {BAD_WORD}.\n", 1),
        ("docs/a.md", f"# Title\n\nThe file is {BAD_WORD}.\n", 3),
        ("docs/a.md", f"```sh\nls\n```\nThe file is {BAD_WORD}.\n", 4),
        ("docs/a.md", f"| a | b |\n|---|---|\n| 1 | {BAD_WORD} |\n", 3),
        ("a.toml", f"[table]\nx = 1  # {BAD_WORD}\n", 2),
        ("a.yaml", f"# {BAD_WORD}\nx: 1\n", 1),
        ("a.yaml", f"summary: The file was {BAD_WORD}\n", 1),
    ],
)
def test_finds_a_listed_word(path: str, source: str, line: int) -> None:
    assert found(path, source) == [(line, BAD_WORD)]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "gateway_core/a.py",
            '"""Returns the file, or None if it does not exist."""\n# Retries on conflict.\nx = "a message"\n',
        ),
        ("gateway_core/a.py", f'"""Calls `{BAD_WORD}`."""\n{BAD_WORD} = f"a {{{BAD_WORD}}}"\n'),
        ("gateway_core/a.py", f'x = "{BAD_WORD}"\n'),
        ("tests/test_a.py", f'x = "this is {BAD_WORD} test data"\n'),
        (
            "docs/a.md",
            f"Text.\n\n```python\nx = '{BAD_WORD}'\n```\n\nUses `{BAD_WORD}`, see [here](a/{BAD_WORD}.md).\n",
        ),
        ("docs/a.md", f"1. Text:\n\n   ````md\n   ```\n   {BAD_WORD}\n   ```\n   ````\n"),
        ("a.txt", BAD_WORD),
    ],
)
def test_accepts_clean_text_and_code(path: str, source: str) -> None:
    assert found(path, source) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A phrase is found across\nlines: it goes again\nand again.", "again and again"),
        ("Returns a value. The name is no\nidentifier.", "is no identifier"),
        ("What a request may use.", "What"),
        ("Is it valid?", "Is it valid?"),
        ("Runs that are on.", "that are on"),
        ("Args:\n    name: How long it waits.", "name: How"),
    ],
)
def test_finds_phrases(text: str, words: str) -> None:
    assert found("gateway_core/a.py", f'"""{text}"""\n')[-1][1] == words


@pytest.mark.parametrize(
    "text",
    [
        "There is no such file.",
        "There is no file; there are two folders.",
        "Tracing depends on it. The limit is 5 on Linux.",
        "The connection is no longer open.",
        "The value is None.",
        "The number of bytes is over the limit.",
        "Returns what the client sent. Is it valid? Then it returns True.",
        "Raises CancelledError when the task was cancelled.",
    ],
)
def test_accepts_ordinary_phrases(text: str) -> None:
    assert found("gateway_core/a.py", f'"""{text}"""\n') == []


def test_an_allowed_phrase_is_accepted_in_its_file_only() -> None:
    rules = lint.load_rules()
    rules.allow.append(("docs/quote.md", lint.re.compile(rf"the {BAD_WORD} file")))
    source = f"Here is the {BAD_WORD} file, {BAD_WORD}.\n"
    assert len(lint.check_source("docs/quote.md", source, rules)) == 1
    assert len(lint.check_source("docs/other.md", source, rules)) == 2


def test_the_line_is_that_of_the_word() -> None:
    assert found("gateway_core/a.py", '"""\nA request.\n\nArgs:\n\n    name: How long.\n"""\n') == [(6, "name: How")]


def test_a_path_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no/such/path"):
        lint.main(["no/such/path"])


def test_every_exception_is_needed() -> None:
    for glob, phrase in RULES.allow:
        sources = [file.read_text() for path, file in lint.files(RULES.paths, []) if lint.fnmatch(path, glob)]
        assert any(phrase.search(source) for source in sources), f"{glob}: {phrase.pattern}"


def test_the_command_prints_findings_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\nIt was {BAD_WORD}.\n")
    assert lint.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{page}:3: '{BAD_WORD}': write 'fix, repair'\n"
    page.write_text("Text.\n")
    assert lint.main([str(tmp_path)]) == 0
