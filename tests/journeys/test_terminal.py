"""The support module of the journeys."""

import signal

from tests.journeys import terminal
from tests.journeys.terminal import Page, Terminal


def test_commands_run_in_a_terminal(tmp_path):
    with Terminal(tmp_path) as shell:
        assert shell.run('test -t 0 && test -t 1 && echo "$PWD"').strip() == str(tmp_path)
        assert shell.run("false", status=1) == ""
        shell.run("export NAME='two\nlines'")
        assert shell.run('echo "$NAME"') == "two\nlines\n"
        shell.start("read -p 'Your name? ' NAME; echo \"Hello, $NAME\"")
        shell.expect(r"Your name\? ")
        shell.start("Ada")
        assert shell.end() == (0, "Hello, Ada\n")


def test_signals_go_to_the_command_and_not_to_the_shell(tmp_path):
    with Terminal(tmp_path) as shell:
        for stop in (shell.interrupt, lambda: shell.signal(signal.SIGTERM)):
            # One process, which is in the foreground when it prints.
            shell.start("python -c 'import time; print(\"started\", flush=True); time.sleep(600)'")
            shell.expect("^started")
            stop()
            assert shell.end()[0] != 0
        assert shell.run("echo here") == "here\n"


def test_the_commands_of_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "```sh\n# a comment\nmake one    # and a remark\ncurl x \\\n  -d 'a\nb'\n```\n\n"
        "1. Item.\n\n   ```console\n   $ make two\n   output\n   $ make three\n   ```\n\n```toml\n[table]\n```\n"
    )
    page = Page("page.md")
    assert page.commands() == ["make one", "curl x \\\n  -d 'a\nb'", "make two", "make three"]
    assert page.command("two") == "make two"
    assert page.block("[table]", "toml") == "[table]\n"
