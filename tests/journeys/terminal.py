"""A real terminal for the journeys, and the commands of the documentation's pages, so that the two cannot drift apart.

A journey reads its commands from the pages with `Page`, types them into a `Terminal`, and prints the time of each
`step`.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 90.0

_PROMPT = re.compile(r"<prompt (\d+)> $")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>])")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


class Page:
    """A page of the documentation.

    Args:
        path: The path from the root of the repository, such as `README.md`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8")

    def blocks(self, language: str = "") -> list[str]:
        """Return the texts of the code blocks, of one language or of all, without their indentation."""
        return [
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
            for found in _FENCE.finditer(self.text)
            if language in ("", found["language"])
        ]

    def block(self, part: str, language: str = "") -> str:
        """Return the only code block that contains a text."""
        found = [block for block in self.blocks(language) if part in block]
        assert len(found) == 1, f"{self.path}: {len(found)} code blocks contain {part!r}"
        return found[0]

    def commands(self, part: str = "") -> list[str]:
        """Return the commands that contain a text, in their order: the lines of `sh` blocks, the `$ ` lines of
        `console` blocks. A command whose lines end with a backslash, or are in quotation marks, is one command."""
        lines = [line for block in self.blocks("sh") for line in _shell_commands(block)]
        lines += [line for block in self.blocks("console") for line in _shell_commands(block, prompt="$ ")]
        return [line for line in lines if part in line]

    def command(self, part: str) -> str:
        """Return the only command that contains a text; the same command may be on the page several times."""
        found = list(dict.fromkeys(self.commands(part)))
        assert len(found) == 1, f"{self.path}: the commands {found} contain {part!r}"
        return found[0]


def _shell_commands(block: str, prompt: str = "") -> Iterator[str]:
    lines = iter(block.splitlines())
    for line in lines:
        if not line.startswith(prompt) or not (command := line.removeprefix(prompt).strip()):
            continue
        if not prompt and command.startswith("#"):
            continue
        while command.endswith("\\") or command.count("'") % 2 or command.count('"') % 2:
            command = f"{command}\n{next(lines)}"
        yield re.sub(r"\s+#\s.*$", "", command)


class Terminal:
    """A shell in a pseudo-terminal, in which commands are typed as a person types them.

    Args:
        folder: The working directory.
        environment: Additional variables.
        columns: The width.
        within: A command that starts the shell, such as `["ip", "netns", "exec", NAME]`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        columns: int = 120,
        within: Sequence[str] = (),
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "GATEWAY_", "PYTEST_"))}
        path = os.pathsep.join((str(Path(sys.executable).parent), clean.get("PATH", os.defpath)))
        program, *arguments = [*within, "bash", "--norc", "--noprofile", "--noediting"]
        self._shell = pexpect.spawn(
            program,
            arguments,
            cwd=str(folder),
            env={**clean, "PATH": path, "PS1": "<prompt $?> ", "PS2": "", "TERM": "xterm", **(environment or {})},
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(50, columns),
            echo=False,
            timeout=WAIT_SECONDS,
            preexec_fn=_accept_interrupts,
        )
        self._shell.expect(_PROMPT)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.close(force=True)

    def run(self, command: str, *, status: int = 0, seconds: float = WAIT_SECONDS) -> str:
        """Type a command, wait until it ends with the status, and return its output without escape sequences."""
        self.start(command)
        ended, output = self.end(seconds)
        assert ended == status, f"{command!r} ended with {ended}:\n{output}"
        return output

    def start(self, command: str) -> None:
        """Type a command, and do not wait for it."""
        self._shell.sendline(command)

    def expect(self, pattern: str, *, seconds: float = WAIT_SECONDS) -> re.Match[str]:
        """Wait until a regular expression is found in the further output of the command. `^` matches at each line.

        Raises:
            AssertionError: The command ended before, or the time has expired; the message has the output.
        """
        found = self._shell.expect(
            [re.compile(pattern, re.MULTILINE), _PROMPT, pexpect.TIMEOUT, pexpect.EOF], timeout=seconds
        )
        assert found == 0, f"{pattern!r} is not in the output:\n{plain(self._shell.before or '')}"
        match: re.Match[str] = self._shell.match
        return match

    def end(self, seconds: float = WAIT_SECONDS) -> tuple[int, str]:
        """Wait until the command ends, and return its status and its output since the last `expect`."""
        found = self._shell.expect([_PROMPT, pexpect.TIMEOUT, pexpect.EOF], timeout=seconds)
        output = plain(self._shell.before or "")
        assert found == 0, f"the command did not end:\n{output}"
        return int(self._shell.match[1]), output

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command."""
        os.killpg(os.tcgetpgrp(self._shell.child_fd), number)

    def interrupt(self) -> None:
        """Press Ctrl+C."""
        self._shell.sendintr()


def _accept_interrupts() -> None:
    """Undo what a shell sets that starts the tests in the background; programs in a terminal accept interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def plain(text: str) -> str:
    """Return the text of a terminal without escape sequences and carriage returns."""
    return _ESCAPE.sub("", text).replace("\r", "")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the duration of a step of a journey; visible with `pytest -s`."""
    began = time.perf_counter()
    yield
    print(f"{name:<70} {time.perf_counter() - began:6.2f} s", flush=True)
