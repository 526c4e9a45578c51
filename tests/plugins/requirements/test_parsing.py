"""Agents' declarations are parsed, and lines that are more than a declaration are rejected."""

from pathlib import Path

import pytest
from gateway_plugins.requirements.parsing import read_declaration

SHA = "sha256:" + "0" * 64


@pytest.fixture
def read(tmp_path):
    def read(requirements=None, agent="from agents import Agent\n", **files):
        (tmp_path / "agent.py").write_text(agent)
        if requirements is not None:
            path = tmp_path / "requirements.txt"
            path.write_bytes(requirements if isinstance(requirements, bytes) else requirements.encode())
        for name, text in files.items():
            (tmp_path / f"{name}.txt").write_text(text)
        return read_declaration("A", tmp_path / "agent.py", tmp_path)

    return read


def texts(declared):
    return [str(one.requirement) for one in declared]


def test_nothing_declared_is_nothing(read):
    assert read().is_empty


def test_a_requirements_file_with_comments_extras_and_markers(read):
    declaration = read("# requirements\n\nattrs >= 25 # newest\nopenai[aiohttp]~=3.0\nx==1; python_version < '3'\n")
    assert texts(declaration.requirements) == ["attrs>=25", "openai[aiohttp]~=3.0", 'x==1; python_version < "3"']
    assert [one.location.line for one in declaration.requirements] == [3, 4, 5]
    assert [one.applies for one in declaration.requirements] == [True, True, False]
    assert not declaration.rejected


def test_windows_line_ends_and_a_byte_order_mark(read):
    assert texts(read("\ufeffattrs\r\nclick\r\n".encode()).requirements) == ["attrs", "click"]


def test_comments_may_hold_any_character(read):
    assert texts(read("attrs # 👩\u200d🚀 ja\u00f6\n").requirements) == ["attrs"]


def test_hashes_may_stand_on_lines_of_their_own(read):
    [declared] = read(f"attrs==26.1.0 \\\n    --hash={SHA} \\\n    --hash={SHA}  # via x\n").requirements
    assert (declared.hashes, declared.location.line) == ((SHA, SHA), 1)


def test_continued_lines_are_joined(read):
    [attrs, click] = read("attrs>=25, \\  # note\n    <99\n# harmless \\\nclick\n").requirements
    assert (str(attrs.requirement), attrs.location.line) == ("attrs<99,>=25", 1)
    assert (str(click.requirement), click.location.line) == ("click", 4)


def test_what_follows_a_hash_sign_is_a_comment_whatever_it_is(read):
    declaration = read("attrs # harmless\u2028--index-url https://evil.test\n")
    assert texts(declaration.requirements) == ["attrs"]
    assert declaration.requirements[0].line == "attrs"


@pytest.mark.parametrize("form", ["-c limits.txt", "--constraint limits.txt", "--constraint=limits.txt"])
def test_constraints_of_a_file_beside_it(read, form):
    declaration = read(f"attrs\n{form}\n", limits="attrs<99\n")
    assert texts(declaration.constraints) == ["attrs<99"]
    assert not declaration.rejected


@pytest.mark.parametrize("line", ["-c other.txt", "-r other.txt", "attrs[x]", f"attrs==1 --hash={SHA}", "-e ."])
def test_a_constraints_file_holds_constraints_only(read, line):
    [rejected] = read("-c limits.txt\n", limits=f"attrs<99\n{line}\n", other="attrs\n").rejected
    assert (Path(rejected.error.source).name, rejected.error.line) == ("limits.txt", 2)


def test_inline_metadata_and_the_file_are_joined(read):
    agent = (
        '"""An agent."""\n# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "click>=8",\n'
        "#   'attrs',\n# ]\n# ///\nfrom agents import Agent\n"
    )
    declaration = read("cattrs\n", agent)
    assert texts(declaration.requirements) == ["click>=8", "attrs", "cattrs"]
    assert [one.location.line for one in declaration.requirements] == [5, 6, 1]
    assert declaration.requirements[0].location.text == '#   "click>=8",'
    assert (str(declaration.python.specifier), declaration.python.location.line) == (">=3.11", 3)


@pytest.mark.parametrize(
    ("block", "line", "expected"),
    [
        ("# dependencies = [\n", 1, "not valid TOML"),
        ("# dependencies = 'attrs'\n", 2, "must be a list of strings"),
        ("# dependencies = [1]\n", 2, "must be a list of strings"),
        ("# dependencies = ['not a name']\n", 2, "invalid requirement"),
        ("# dependencies = ['attrs --hash=x']\n", 2, "invalid requirement"),
        ("# requires-python = 'new'\n", 2, "must be a version specifier"),
        ("# requires-python = 3\n", 2, "must be a version specifier"),
        (f"# x = {'[' * 9000}\n", 1, "not valid TOML"),
    ],
)
def test_malformed_inline_metadata_is_reported_with_its_line(read, block, line, expected):
    [rejected] = read(agent=f"# /// script\n{block}# ///\n").rejected
    assert (rejected.malformed, rejected.error.line) == (True, line)
    assert expected in rejected.error.message


@pytest.mark.parametrize("block", ["# dependencies = ['x @ git+https://h/x']\n", "# [tool.uv]\n# index-url = 'u'\n"])
def test_inline_metadata_cannot_name_another_place_to_install_from(read, block):
    [rejected] = read(agent=f"# /// script\n{block}# ///\n").rejected
    assert (rejected.malformed, rejected.error.line) == (False, 2)


@pytest.mark.parametrize(
    "line",
    [
        "two words",
        "attrs>>1",
        "==1",
        "attrs ; nonsense == '1'",
        f"attrs==1 --hash={SHA[:-1]}",
        "a" * 9999,
        f"a; {'(' * 1500}",
        f"a; {'(' * 500000}",
    ],
    ids=range(8),
)
def test_a_line_that_nobody_understands(read, line):
    [rejected] = read(f"attrs\n{line}\n").rejected
    assert (rejected.malformed, rejected.error.line) == (True, 2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x==${VERSION}", "environment variables"),
        ("./x", "a file or a folder"),
        ("C:\\x", "from a URL, a file or a folder"),
        ("git+https://h/x", "from a URL"),
        ("x @ https://h/x.zip", "installing from a URL"),
        ("x-1.0.tar.gz", "installing from a URL, a file"),
        ("--pre", "the option --pre"),
    ],
)
def test_a_line_that_is_clear_and_rejected_says_why(read, line, expected):
    [rejected] = read(f"{line}\n").rejected
    assert expected in rejected.error.message
    assert not rejected.malformed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"attrs\n\xff", "not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_text_of_this_kind(read, content, expected):
    [rejected] = read(content).rejected
    assert expected in rejected.error.message


def test_many_blanks_are_read_in_no_time(read):
    assert read(" " * 1_000_000).is_empty


def test_a_pipe_is_not_opened_and_a_link_not_followed_out_of_the_folder(tmp_path):
    import os

    for name, place in (("Pipe", os.mkfifo), ("Link", lambda path: path.symlink_to("/etc/passwd"))):
        folder = tmp_path / name
        folder.mkdir()
        place(folder / "requirements.txt")
        [rejected] = read_declaration("A", folder / "agent.py", folder).rejected
        assert "regular" in rejected.error.message or "outside" in rejected.error.message
        assert rejected.error.source_line == "", "no other file is quoted"
