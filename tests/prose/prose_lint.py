"""Checks the wording of docstrings, comments, messages and pages against the list in `words.toml`.

Run from the project's root: `python tests/prose/prose_lint.py [--count] [PATH...]`. Exit status 1 means findings.

In Python files it reads docstrings, comments and string literals of more than one word, with the constant parts of
f-strings; under `tests/` only docstrings and comments, because other literals there are test data. In Markdown it skips
fenced code; in TOML, YAML and JSON it reads every line. Text in backticks is code and is skipped everywhere.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = Path(__file__).with_name("words.toml")

# Stands for code inside prose: a word, so that patterns see a word in its place.
CODE = "_"
SUFFIXES = (".py", ".md", ".toml", ".yaml", ".yml", ".json")

INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")
LINK_TARGET = re.compile(r"(?<=\])\([^)\s]*\)|<https?://[^>]*>|https?://\S+")
LITERAL = re.compile(r"(?P<prefix>[A-Za-z]*)(?P<quote>\"\"\"|'''|\"|')(?P<body>.*)(?P=quote)", re.DOTALL)
NESTED_LITERAL = re.compile(r"\"([^\"]*)\"|'([^']*)'")
BRACES_OUTSIDE = re.compile(r"\{\{|\}\}|\{")
BRACES_INSIDE = re.compile(r"[{}]")
ESCAPE = re.compile(r"\\[nrt]")


@dataclass(frozen=True)
class Text:
    """A continuous piece of prose.

    Args:
        kind: `docstring`, `comment`, `message`, `markdown` or `data`.
        parts: Its text in order, each part with its line number in the file. Line breaks are part of the text.
    """

    kind: str
    parts: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Finding:
    """One use of a listed word.

    Args:
        path: The file, relative to the project's root where it is inside.
        line: Counted from 1.
        words: The text that matched.
        write: The replacement to consider.
        pattern: The pattern's name for `--count`.
    """

    path: str
    line: int
    words: str
    write: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: '{self.words}': write '{self.write}'"


@dataclass(frozen=True)
class Pattern:
    """One entry of the list.

    Args:
        find: The regular expression as written in the list; a space matches any whitespace.
        write: The replacement to suggest.
        regex: The compiled expression.
        kinds: The kinds of text that it applies to; empty means all.
    """

    find: str
    write: str
    regex: re.Pattern[str]
    kinds: frozenset[str] = frozenset()


@dataclass
class Rules:
    """The list: patterns, exceptions, and the files to check.

    Args:
        patterns: Applied in order; where two overlap, the first one counts.
        allow: Pairs of a path (a glob) and a phrase that may stand there.
        paths: Checked when the command line names none.
        exclude: Globs of paths that are not checked.
    """

    patterns: list[Pattern]
    allow: list[tuple[str, re.Pattern[str]]]
    paths: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)


def spaced(expression: str) -> str:
    """Let each space of an expression match any whitespace."""
    return expression.replace(" ", r"\s+")


def load_rules(path: Path = WORDS) -> Rules:
    """Read the list.

    Raises:
        KeyError: An entry lacks a key.
        re.error: A pattern is not a valid expression.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    patterns = []
    for entry in table["pattern"]:
        # Matches whole words by default, so that `mend` does not match `recommend`.
        find = entry["find"]
        flags = re.MULTILINE | (0 if entry.get("case") else re.IGNORECASE)
        expression = find if entry.get("raw") else rf"\b(?:{find})\b"
        regex = re.compile(spaced(expression), flags)
        patterns.append(Pattern(find, entry["write"], regex, frozenset(entry.get("kinds", ()))))
    allow = [
        (entry["path"], re.compile(spaced(re.escape(entry["phrase"]).replace(r"\ ", " "))))
        for entry in table.get("allow", ())
    ]
    return Rules(patterns, allow, table["paths"], table["exclude"])


def without_code(text: str) -> str:
    """The text with each character of inline code replaced, so that offsets stay."""
    return INLINE_CODE.sub(lambda match: re.sub(r"\S|[^\S\n]", CODE, match[0]), text)


def without_interpolations(body: str) -> tuple[str, list[tuple[int, str]]]:
    """Replace the expressions in an f-string's body by `CODE`.

    Returns:
        The text, and the string literals inside the expressions, each with the number of line breaks before it.
    """
    text, literals, depth, start, position = "", [], 0, 0, 0
    while brace := (BRACES_INSIDE if depth else BRACES_OUTSIDE).search(body, position):
        position = brace.end()
        if len(brace[0]) == 2:
            continue
        if depth == 0:
            text += body[start : brace.start()] + CODE
            start = brace.start()
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            expression = body[start:position]
            literals += [
                (body.count("\n", 0, start), one or other) for one, other in NESTED_LITERAL.findall(expression)
            ]
            text += "\n" * expression.count("\n")
            start = position
    return text + body[start:], literals


def literal_parts(source: str, line: int) -> Iterator[tuple[int, str]]:
    """The lines of a literal's prose. Literals inside an f-string's expressions follow at the end."""
    match = LITERAL.fullmatch(source)
    if match is None:
        return
    prefix, body, nested = match["prefix"].lower(), match["body"], []
    if "f" in prefix:
        body, nested = without_interpolations(body)
    if "r" not in prefix:
        body = ESCAPE.sub("  ", body).replace("\\\n", "\n")
    for number, part in enumerate(body.splitlines(keepends=True)):
        yield line + number, part.lstrip(" ") if number else part
    yield from ((line + number, f"\n{part}\n") for number, part in nested)


def string_tokens(tokens: list[tokenize.TokenInfo], lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """Each literal: the index of its first and last token, its line, and its source.

    An f-string is one token before Python 3.12, and several since.
    """
    start_type, end_type = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)
    depth, first = 0, 0
    for index, token in enumerate(tokens):
        if token.type == start_type:
            first = index if depth == 0 else first
            depth += 1
        elif token.type == end_type:
            depth -= 1
            if depth == 0:
                begin, end = tokens[first].start, token.end
                rows = lines[begin[0] - 1 : end[0]]
                rows[-1] = rows[-1][: end[1]]
                rows[0] = rows[0][begin[1] :]
                yield first, index, begin[0], "".join(rows)
        elif token.type == tokenize.STRING and depth == 0:
            yield index, index, token.start[0], token.string


def comment_texts(tokens: list[tokenize.TokenInfo]) -> Iterator[Text]:
    """The comments; those on consecutive lines are one text."""
    block: list[tuple[int, str]] = []
    for token in tokens:
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        has_code_before = token.line[: token.start[1]].strip()
        if block and (has_code_before or block[-1][0] != line - 1):
            yield Text("comment", tuple(block))
            block = []
        block.append((line, token.string.lstrip("#!: ") + "\n"))
    if block:
        yield Text("comment", tuple(block))


def literal_texts(tokens: list[tokenize.TokenInfo], lines: list[str], docstrings: set[int]) -> Iterator[Text]:
    """The string literals; adjacent ones, which Python concatenates, are one text.

    Args:
        tokens: All tokens of the file.
        lines: The file's lines, with their ends.
        docstrings: The numbers of the lines on which docstrings start.
    """
    block: list[tuple[int, str]] = []
    kind, last = "message", -1
    for first, end, line, source in string_tokens(tokens, lines):
        between = tokens[last + 1 : first]
        if block and any(token.type not in (tokenize.NL, tokenize.COMMENT) for token in between):
            yield Text(kind, tuple(block))
            block = []
        if not block:
            kind = "docstring" if line in docstrings else "message"
        last = end
        block += literal_parts(source, line)
    if block:
        yield Text(kind, tuple(block))


def python_texts(source: str, path: str, *, messages: bool = True) -> Iterator[Text]:
    """The docstrings, comments and, with `messages`, the other string literals of a Python file.

    Raises:
        SyntaxError: The file is not valid Python.
    """
    # Strings as statements: those below an attribute document it.
    docstrings = {
        node.value.lineno
        for node in ast.walk(ast.parse(source, path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    yield from comment_texts(tokens)
    for text in literal_texts(tokens, source.splitlines(keepends=True), docstrings):
        if messages or text.kind == "docstring":
            yield text


def markdown_texts(source: str) -> Iterator[Text]:
    """The paragraphs, list items, headings and tables of a page, without its code."""
    fence = ""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(source.splitlines(), 1):
        stripped = line.strip()
        mark = re.match(r"`{3,}|~{3,}", stripped)
        if fence:
            if mark and mark[0].startswith(fence) and stripped == mark[0]:
                fence = ""
            continue
        if mark:
            fence = mark[0]
        if mark or not stripped:
            if block:
                yield Text("markdown", tuple(block))
            block = []
            continue
        block.append((number, LINK_TARGET.sub(" ", line.strip()) + "\n"))
    if block:
        yield Text("markdown", tuple(block))


def data_texts(source: str) -> Iterator[Text]:
    """A TOML, YAML or JSON file: its comments and its values, as one text."""
    yield Text("data", tuple((number, line.lstrip("# ") + "\n") for number, line in enumerate(source.splitlines(), 1)))


def texts(path: str, source: str) -> Iterator[Text]:
    """The prose of a file, by its suffix; nothing for a suffix that is unknown.

    Args:
        path: Relative to the project's root.
        source: The file's content.
    """
    suffix = Path(path).suffix
    if suffix == ".py":
        yield from python_texts(source, path, messages=Path(path).parts[:1] != ("tests",))
    elif suffix == ".md":
        yield from markdown_texts(source)
    elif suffix in (".toml", ".yaml", ".yml", ".json"):
        yield from data_texts(source)


def check_text(path: str, text: Text, rules: Rules) -> Iterator[Finding]:
    """The findings of one piece of prose."""
    joined, starts, numbers = "", [], []
    for number, part in text.parts:
        starts.append(len(joined))
        numbers.append(number)
        joined += part
    joined = without_code(joined)
    if text.kind == "message" and len(joined.split()) < 2:
        return
    taken = [match.span() for glob, phrase in rules.allow if fnmatch(path, glob) for match in phrase.finditer(joined)]
    for pattern in rules.patterns:
        if pattern.kinds and text.kind not in pattern.kinds:
            continue
        for match in pattern.regex.finditer(joined):
            begin, end = match.end() - len(match[0].lstrip()), match.end()
            if any(low < end and begin < high for low, high in taken):
                continue
            taken.append((begin, end))
            line = numbers[bisect_right(starts, begin) - 1]
            yield Finding(path, line, " ".join(match[0].split()), pattern.write, pattern.find)


def check_source(path: str, source: str, rules: Rules) -> list[Finding]:
    """The findings of one file, in the order of its lines."""
    found = [finding for text in texts(path, source) for finding in check_text(path, text, rules)]
    return sorted(found, key=lambda finding: finding.line)


def files(paths: list[str], exclude: list[str]) -> Iterator[tuple[str, Path]]:
    """The files to read below the given paths, each with its path relative to the project's root.

    Raises:
        FileNotFoundError: A given path does not exist.
    """
    for given in paths:
        start = Path(given) if Path(given).is_absolute() or Path(given).exists() else ROOT / given
        if not start.exists():
            raise FileNotFoundError(f"{given} does not exist")
        found = sorted(start.rglob("*")) if start.is_dir() else [start]
        for file in found:
            absolute = file.resolve()
            relative = absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else absolute
            inside = file.relative_to(start).parts
            if any(part.startswith(".") or part in ("__pycache__", "node_modules") for part in inside):
                continue
            if file.is_file() and not any(fnmatch(relative.as_posix(), glob) for glob in exclude):
                yield relative.as_posix(), file


def counted(title: str, counts: Counter[str], lines: Counter[str] | None = None) -> None:
    print(f"\n{title}")
    for name, count in counts.most_common():
        rate = f"{1000 * count / lines[name]:8.1f}" if lines else ""
        print(f"{count:6}{rate}  {name}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns its exit status: 0 without findings, 1 with findings.

    Raises:
        FileNotFoundError: A path does not exist.
        SyntaxError: A Python file cannot be parsed.
    """
    parser = argparse.ArgumentParser(description="Check the wording of docstrings, comments, messages and pages.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders; default: the list in words.toml")
    parser.add_argument("--count", action="store_true", help="print counts by folder, file and pattern, not findings")
    options = parser.parse_args(arguments)
    rules = load_rules()

    findings: list[Finding] = []
    by_file, by_folder = Counter[str](), Counter[str]()
    for path, file in files(options.paths or rules.paths, rules.exclude):
        if file.suffix not in SUFFIXES:
            continue
        source = file.read_text(encoding="utf-8")
        findings += check_source(path, source, rules)
        by_file[path] = source.count("\n") + 1
        by_folder[path.partition("/")[0]] += by_file[path]
    if options.count:
        counted(
            "findings, per 1,000 lines, top-level folder",
            Counter(f.path.partition("/")[0] for f in findings),
            by_folder,
        )
        counted("findings, per 1,000 lines, file", Counter(f.path for f in findings), by_file)
        counted("findings, pattern", Counter(f"{f.pattern}  ->  {f.write}" for f in findings))
        total = sum(by_file.values())
        print(
            f"\n{len(findings)} findings in {total} lines: {1000 * len(findings) / max(total, 1):.1f} per 1,000 lines"
        )
    else:
        for finding in findings:
            print(finding)
        if findings:
            print(f"findings: {len(findings)}; the rules are in {WORDS.relative_to(ROOT)}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
