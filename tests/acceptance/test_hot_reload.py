"""Saved files are reloaded, however they are saved, without affecting other agents.

A real folder, the real watcher, the real command. Each test waits for the served answer, with a timeout.
"""

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.conftest import Server, serving

SECONDS = 30.0


def until(holds: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
    """Poll until the condition holds. Each check makes a request, so no sleep is needed."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what


class Place:
    """A folder of agents. Each returns a text from its file, and records each of its imports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.agents = root / "agents"
        self.marks = root / "imports.txt"
        self.marks.touch()
        self.agents.mkdir(exist_ok=True)

    def source(self, name: str, says: str, more: str = "") -> str:
        return (
            f"{more}\nwith open({str(self.marks)!r}, 'a') as marks:\n    marks.write('{name}\\n')\n"
            f"async def run(messages):\n    return {says}\n"
        )

    def write(self, name: str, says: str, more: str = "") -> Path:
        """Truncate and write, like most programs."""
        path = self.agents / name / "agent.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.source(name, says, more))
        return path

    def imports(self) -> dict[str, int]:
        """Return the number of imports of each agent."""
        names = self.marks.read_text().split()
        return {name: names.count(name) for name in names}


class Gateway:
    """A running gateway, as a client sees it."""

    def __init__(self, server: Server, place: Place) -> None:
        self.server = server
        self.place = place
        self.http = httpx2.Client(base_url=server.url, timeout=20)

    def says(self, name: str) -> str | None:
        """Return the answer of an agent, or `None` if it does not exist."""
        answer = self.http.post(
            "/v1/chat/completions", json={"model": name, "messages": [{"role": "user", "content": "hi"}]}
        )
        return answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else None

    def admin(self, page: str) -> Any:
        return self.http.get(f"/admin/{page}").json()

    @property
    def generation(self) -> int:
        return self.admin("agents")["generation"]

    def agent(self, name: str) -> dict[str, Any]:
        return next((agent for agent in self.admin("agents")["agents"] if agent["id"] == name), {})

    def watcher(self) -> dict[str, Any]:
        return next(plugin["facts"] for plugin in self.admin("plugins")["plugins"] if plugin["name"] == "hot_reload")

    def settle(self) -> None:
        """Wait until the watcher is alive and has reloaded once."""
        until(lambda: self.watcher()["watcher_alive"] and self.watcher()["reloads"] >= 1, "the watcher never started")


@contextmanager
def gateway(place: Place, *arguments: str, **environment: str) -> Iterator[Gateway]:
    with serving(place.root, "--offline", *arguments, environment=environment) as server:
        found = Gateway(server, place)
        try:
            yield found
        finally:
            found.http.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module", params=["inotify", "poll"])
def running(request, tmp_path_factory) -> Iterator[Gateway]:
    """One gateway with two agents for all ways to save, in both modes."""
    place = Place(tmp_path_factory.mktemp(request.param))
    place.write("One", "'start'")
    place.write("Bystander", "'never changed'")
    settings = {"GATEWAY__PLUGINS__HOT_RELOAD__MODE": request.param} if request.param == "poll" else {}
    with gateway(place, **settings, GATEWAY__PLUGINS__HOT_RELOAD__POLL_INTERVAL="200ms") as found:
        found.settle()
        assert found.watcher()["mode"] == request.param
        yield found


def truncate_and_write(path: Path, text: str) -> None:
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    new = path.with_name("agent.py.new")
    new.write_text(text)
    new.replace(path)


def rename_over_from_outside(path: Path, text: str) -> None:
    new = path.parents[2] / "new.py"
    new.write_text(text)
    new.replace(path)


def swap_file(path: Path, text: str) -> None:
    """Save like vim with its default settings and a backup."""
    swap, probe, backup = (path.with_name(name) for name in (".agent.py.swp", "4913", "agent.py~"))
    swap.write_text("swap")
    probe.touch()
    probe.unlink()
    path.rename(backup)
    path.write_text(text)
    backup.unlink()
    swap.unlink()


def real_vim(path: Path, text: str) -> None:
    if not shutil.which("vim"):
        pytest.skip("there is no vim here")
    new = path.parents[2] / "typed.txt"
    new.write_text(text)
    commands = ["set nomore", "%delete _", f"silent 0read {new}", "wq"]
    subprocess.run(
        ["vim", "-u", "NONE", "-N", "-es", *(f"+{command}" for command in commands), str(path)],
        check=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )


def remove_and_write(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


@pytest.mark.parametrize(
    "save", [truncate_and_write, rename_over, rename_over_from_outside, swap_file, real_vim, remove_and_write]
)
def test_every_way_to_save_reloads_once_and_only_that_agent(running, save):
    generation, imports = running.generation, running.place.imports()
    wanted = save.__name__
    save(running.place.agents / "One" / "agent.py", running.place.source("One", repr(wanted)))
    until(lambda: running.says("One") == wanted, f"{save.__name__} was not noticed")
    assert running.generation == generation + 1
    assert running.place.imports() == {**imports, "One": imports["One"] + 1}


def test_a_partially_written_file_is_never_served(running):
    path = running.place.agents / "One" / "agent.py"
    before = running.says("One")
    half, rest = running.place.source("One", "'whole'").split("async def")
    path.write_text(half)
    until(lambda: running.agent("One")["state"] == "stale", "half a file was not told")
    assert running.says("One") == before
    assert running.agent("One")["diagnosis"]["kind"] == "export"
    with path.open("a") as file:
        file.write(f"async def{rest}")
    until(lambda: running.says("One") == "whole", "the rest was not noticed")
    assert running.agent("One")["state"] == "ok"


def test_a_broken_save_leaves_the_last_good_version(running):
    before = running.says("One")
    running.place.write("One", "'never'", more="oops = 1 / 0")
    until(lambda: running.agent("One")["state"] == "stale", "the broken version was not told")
    assert running.says("One") == before
    assert running.agent("One")["diagnosis"]["line"] == 1
    running.place.write("One", "'mended'")
    until(lambda: running.says("One") == "mended", "the mended version was not noticed")
    assert running.agent("One")["state"] == "ok"


def test_new_renamed_moved_and_deleted_folders(running):
    place, agents = running.place, running.place.agents
    bystanders = place.imports()["Bystander"]
    place.write("New", "'new'")
    until(lambda: running.says("New") == "new", "a new folder was not noticed")
    (agents / "New").rename(agents / "Renamed")
    until(lambda: running.says("Renamed") == "new" and running.says("New") is None, "renaming was not noticed")
    (agents / "labs").mkdir()
    (agents / "Renamed").rename(agents / "labs" / "Moved")
    until(lambda: running.says("labs/Moved") == "new", "moving was not noticed")
    place.write("labs/Moved", "'edited'")
    until(lambda: running.says("labs/Moved") == "edited", "an edit where it was moved to was not noticed")
    (agents / "labs" / "Moved").rename(place.root / "away")
    until(lambda: running.says("labs/Moved") is None, "moving it out was not noticed")
    (place.root / "away").rename(agents / "Back")
    until(lambda: running.says("Back") == "edited", "moving it in was not noticed")
    shutil.rmtree(agents / "Back")
    until(lambda: running.says("Back") is None, "deleting was not noticed")
    assert place.imports()["Bystander"] == bystanders


def test_helpers_and_data_files_are_part_of_an_agent(running):
    place = running.place
    folder = place.agents / "Helped"
    folder.mkdir()
    (folder / "tools.py").write_text("WORD = 'helper'\n")
    (folder / "words.json").write_text('"data"')
    read = "import json, pathlib\nfrom tools import WORD\n"
    data = "json.loads(pathlib.Path(__file__).with_name('words.json').read_text())"
    place.write("Helped", "WORD + DATA", more=f"{read}DATA = {data}\n")
    until(lambda: running.says("Helped") == "helperdata", "it was not noticed")
    (folder / "tools.py").write_text("WORD = 'changed'\n")
    until(lambda: running.says("Helped") == "changeddata", "a helper module was not noticed")
    (folder / "words.json").write_text('"too"')
    until(lambda: running.says("Helped") == "changedtoo", "a data file was not noticed")
    imports = place.imports()
    (folder / "notes.log").write_text("what a running agent writes")
    (folder / "memory.sqlite3").write_text("what a running agent writes")
    (folder / "last.txt").write_text("something else, which is noticed after that")
    until(lambda: place.imports()["Helped"] > imports["Helped"], "a text file was not noticed")
    shutil.rmtree(folder)
    until(lambda: running.says("Helped") is None, "deleting was not noticed")


def test_a_shared_module_reloads_the_agents_that_use_it(running):
    place = running.place
    shared = place.agents / "_shared"
    shared.mkdir()
    (place.agents / "_base.py").write_text("WORD = 'old'\n")
    (shared / "words.py").write_text("from _base import WORD\n")
    place.write("Uses", "WORD", more="from _shared.words import WORD\n")
    until(lambda: running.says("Uses") == "old", "it was not noticed")
    imports = place.imports()
    (place.agents / "_base.py").write_text("WORD = 'new'\n")
    until(lambda: running.says("Uses") == "new", "what it shares was not noticed")
    assert place.imports() == {**imports, "Uses": imports["Uses"] + 1}
    shutil.rmtree(shared)
    shutil.rmtree(place.agents / "Uses")
    until(lambda: running.says("Uses") is None, "deleting was not noticed")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def test_a_checkout_of_many_files_is_one_reload(place):
    place.write("Bystander", "'never changed'")
    for number in range(50):
        place.write(f"Agent{number}", "'first'", more="from tools import X, Y, Z")
        (place.agents / f"Agent{number}" / "tools.py").write_text("X = Y = Z = 1\n")
    git(place.agents, "init", "-q", "-b", "first")
    git(place.agents, "add", ".")
    git(place.agents, "commit", "-qm", "first")
    for number in range(50):
        place.write(f"Agent{number}", "'second'", more="from tools import X, Y, Z")
        for name in "abc":
            (place.agents / f"Agent{number}" / f"{name}.txt").write_text("second")
    git(place.agents, "checkout", "-qb", "second")
    git(place.agents, "add", ".")
    git(place.agents, "commit", "-qm", "second")
    with gateway(place) as running:
        running.settle()
        assert running.says("Agent7") == "second"
        generation, imports = running.generation, place.imports()
        git(place.agents, "checkout", "-q", "first")

        def answers() -> set[str]:
            return {running.says(f"Agent{number}") for number in range(50)}

        # On a busy machine git pauses for longer than files have to be quiet: it may take more reloads than one.
        until(lambda: answers() == {"first"}, "the checkout was not noticed")
        assert running.generation - generation <= 3
        assert place.imports()["Bystander"] == imports["Bystander"]


def test_an_invalid_configuration_leaves_the_old_one_active(place):
    place.write("One", "'x' * 40")
    file = place.root / "gateway.toml"
    file.write_text("[http]\nmax_messages = 3\n")
    messages = [{"role": "user", "content": "hi"}] * 4

    with gateway(place) as running:
        running.settle()

        def status() -> int:
            return running.http.post("/v1/chat/completions", json={"model": "One", "messages": messages}).status_code

        def error() -> str:
            return (running.admin("plugins")["configuration"]["error"] or {"message": ""})["message"]

        assert status() == 400
        file.write_text("[http\nmax_messages = 9")
        until(lambda: "is not valid TOML" in error(), "nonsense was not told")
        assert status() == 400
        file.write_text("[http]\nmax_messages = 9\n[runs]\nmax_trns = 3\n")
        until(lambda: "unknown key" in error(), "a wrong key was not told")
        assert status() == 400
        file.write_text("[http]\nmax_messages = 9\n[server]\nbacklog = 9\n[plugins.error_recorder]\ncapacity = 3\n")
        until(lambda: status() == 200, "the mended file was not noticed")
        assert error() == ""
        told = running.admin("plugins")
        assert told["configuration"]["restart"] == ["[server] backlog"]
        [recorder] = [plugin["facts"] for plugin in told["plugins"] if plugin["name"] == "error_recorder"]
        assert recorder["capacity"] == 3
        file.unlink()
        until(lambda: not running.admin("plugins")["configuration"]["restart"], "deleting it was not noticed")
        assert status() == 200


def test_the_folder_itself_may_be_removed_and_created_again(place):
    place.write("One", "'first'")
    with gateway(place) as running:
        running.settle()
        assert running.says("One") == "first"
        place.agents.rename(place.root / "away")
        until(lambda: running.says("One") is None, "it was not noticed that the folder went")
        place.agents.mkdir()
        place.write("One", "'second'")
        until(lambda: running.says("One") == "second", "it was not noticed that the folder came")
        until(lambda: running.watcher()["watcher_alive"], "the watcher did not come back")
        place.write("One", "'third'")
        until(lambda: running.says("One") == "third", "an edit in the new folder was not noticed")


def test_with_mode_off_reload_is_manual(place):
    place.write("One", "'first'")
    with gateway(place, GATEWAY_AGENT_WATCH="0") as running:
        assert "files are not watched; to reload: POST /admin/reload, or send SIGHUP" in running.server.text
        [plugin] = [p for p in running.admin("plugins")["plugins"] if p["name"] == "hot_reload"]
        assert plugin["enabled"] is False
        place.write("One", "'second'")
        assert running.http.post("/admin/reload").json()["generation"] == 2
        assert running.says("One") == "second"
        place.write("One", "'third'")
        running.server.process.send_signal(signal.SIGHUP)
        until(lambda: running.says("One") == "third", "SIGHUP did not reload")
        assert running.server.process.poll() is None


STREAMS = 20
EDITS = 100


def test_many_edits_do_not_break_running_streams_and_the_last_one_is_served(place):
    steady = (
        "import asyncio\n"
        "async def stream(messages):\n"
        "    yield VERSION\n"
        "    for number in range(COUNT):\n"
        "        await asyncio.sleep(0.02)\n"
        "        yield f' {number}'\n"
        "    yield ' ' + VERSION\n"
    )

    def write(version: int, count: int) -> None:
        (place.agents / "Steady.py").write_text(f"VERSION, COUNT = 'v{version}', {count}\n{steady}")

    write(0, 150)
    place.write("Bystander", "'never changed'")
    answers: list[str] = []
    failures: list[BaseException] = []
    done = threading.Event()

    with gateway(place) as running:
        running.settle()
        url = running.server.url
        bystanders = place.imports()["Bystander"]

        def stream_again_and_again() -> None:
            body = {"model": "Steady", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            try:
                with httpx2.Client(base_url=url, timeout=30) as http:
                    while not done.is_set():
                        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                            assert answer.status_code == 200, answer.read()
                            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
                        assert lines[-1] == "[DONE]", lines[-3:]
                        chunks = [json.loads(line) for line in lines[:-1]]
                        answers.append(
                            "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
                        )
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=stream_again_and_again) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        # An edit each time that another agent has answered: as fast as the gateway can be asked.
        for version in range(1, EDITS + 1):
            write(version, 150)
            assert running.says("Bystander") == "never changed"
        write(EDITS + 1, 0)
        until(lambda: running.says("Steady") == f"v{EDITS + 1} v{EDITS + 1}", "the last edit did not win")
        done.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert place.imports()["Bystander"] == bystanders
    assert not failures
    assert len(answers) >= STREAMS
    for answer in answers:
        words = answer.split()
        assert words[0] == words[-1], "a stream ends on the version that it began with"
        assert words[1:-1] in ([str(number) for number in range(150)], [])
