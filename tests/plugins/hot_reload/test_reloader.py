"""The watcher recovers from dead threads, removed folders, system limits and errors."""

import asyncio
import errno
import shutil
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
from gateway_plugins.hot_reload import HotReload, Settings, event_source
from watchdog.utils import BaseThread

from gateway_core import PluginError, hookimpl
from gateway_core.testing import gateway_in_memory

WORKFLOW = "async def run(messages):\n    return {says!r}\n"
FAST = {"debounce": "20ms", "debounce_limit": "300ms"}


async def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


class ErrorRecorder:
    def __init__(self, *_):
        self.errors = []

    @hookimpl
    def on_error(self, error):
        self.errors.append(error)


class Watched:
    def __init__(self, folder, running):
        self.folder = folder
        self.gateway = running.gateway
        self.plugin = self.gateway.plugins.loaded["hot_reload"].plugin
        self.errors = self.gateway.plugins.loaded["errors"].plugin.errors

    def write(self, name, says):
        (self.folder / f"{name}.py").write_text(WORKFLOW.format(says=says))

    @property
    def facts(self):
        return self.gateway.hooks.describe()["hot_reload"]

    @property
    def reported(self):
        return [error.code for error in self.errors]

    def digest(self, name):
        served = self.gateway.catalog.agents.get(name)
        return served and served.entry.digest

    async def started(self):
        await until(lambda: self.facts["watcher_alive"] and self.facts["reloads"])

    async def detects_change(self, name="One"):
        before = self.digest(name)
        self.write(name, f"after {before}")
        await until(lambda: self.digest(name) not in (None, before))


@pytest.fixture
def watching(tmp_path):
    folder = tmp_path / "agents"
    folder.mkdir()

    @asynccontextmanager
    async def watching(**settings):
        tables = {"plugins": {"hot_reload": {**FAST, **settings}}}
        async with gateway_in_memory(folder=folder, plugins={"errors": ErrorRecorder}, config=tables) as g:
            watched = Watched(folder, g)
            if settings.get("mode") != "off":
                await watched.started()
            yield watched

    return watching


async def test_it_watches_and_describes_its_mode(watching):
    async with watching() as w:
        await w.detects_change()
        facts = w.facts
        assert (facts["mode"], facts["watcher_alive"], facts["restarts"]) == ("inotify", True, 0)
        assert str(w.folder) in facts["watched"]
        assert w.reported == []
    assert w.facts == {"mode": "off", "watcher_alive": False}


def fail(*_, **__):
    raise RuntimeError("what ends a thread")


def end_dispatcher(observer):
    observer.dispatch_events = fail


def end_emitters(observer):
    for emitter in observer.emitters:
        emitter.queue_events = fail


def end_reader(observer):
    observer._inotify_fd.read_events = fail


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("end", [end_dispatcher, end_emitters, end_reader])
async def test_a_dead_thread_is_detected_reported_and_restarted(watching, end):
    async with watching() as w:
        observer = w.plugin._reloader.event_source._watcher._observer
        end(observer)
        w.write("One", "wakes the thread")
        await until(lambda: w.facts["restarts"] == 1 and w.facts["watcher_alive"])
        assert w.reported == ["watcher_died"]
        assert w.plugin._reloader.event_source._watcher._observer is not observer
        await w.detects_change()


async def test_a_folder_that_is_removed_and_created_again_is_watched(watching):
    async with watching() as w:
        await w.detects_change()
        for _ in range(2):
            shutil.rmtree(w.folder)
            await until(lambda: "One" not in w.gateway.catalog.agents)
            w.folder.mkdir()
            await w.detects_change()
        assert w.facts["watcher_alive"]
        assert w.facts["restarts"] == 0, "nothing died"


async def test_a_replaced_folder_is_watched(watching):
    async with watching() as w:
        await w.detects_change()
        new = w.folder.with_name("new")
        new.mkdir()
        (new / "Two.py").write_text(WORKFLOW.format(says="two"))
        w.folder.rename(w.folder.with_name("old"))
        new.rename(w.folder)
        await until(lambda: set(w.gateway.catalog.agents) == {"Two"})
        await w.detects_change("Two")


async def test_a_folder_that_is_created_later_is_watched(watching):
    folder_and_above = None
    async with watching() as w:
        shutil.rmtree(w.folder)
        folder_and_above = w.folder.parent
        await until(lambda: w.facts["watcher_alive"])
        (folder_and_above / "agents").mkdir()
        await w.detects_change()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
async def test_when_a_system_limit_is_reached_it_polls_and_reports_it(watching, number, monkeypatch):
    from watchdog.observers import inotify_c

    def refuse(*_):
        raise OSError(number, "inotify watch limit reached")

    monkeypatch.setattr(inotify_c.InotifyFD, "add_callback", refuse)
    async with watching(poll_interval="50ms") as w:
        assert (w.facts["mode"], w.facts["reason"]) == ("poll", "inotify watch limit reached")
        assert w.reported == ["watcher_polls"]
        await w.detects_change()


async def test_stopping_during_startup_leaves_no_thread(tmp_path, monkeypatch):
    from gateway_plugins.hot_reload.watchdog_source import WatchdogSource

    loop, start, resume = asyncio.get_running_loop(), WatchdogSource.start, threading.Event()
    starting, started = asyncio.Event(), asyncio.Event()

    def slow(self):
        loop.call_soon_threadsafe(starting.set)
        assert resume.wait(10)
        start(self)
        loop.call_soon_threadsafe(started.set)

    monkeypatch.setattr(WatchdogSource, "start", slow)
    async with gateway_in_memory(folder=tmp_path, config={"plugins": {"hot_reload": FAST}}):
        await starting.wait()
        loop.call_later(0.05, resume.set)
    await started.wait()
    left = [thread for thread in threading.enumerate() if isinstance(thread, BaseThread)]
    for thread in left:  # a thread that was stopped may take a moment on a busy machine
        await asyncio.to_thread(thread.join, 20)
    assert not [thread for thread in left if thread.is_alive()]


async def test_on_a_file_system_without_events_it_polls(watching, monkeypatch):
    monkeypatch.setattr(event_source, "silent_file_system", lambda _: "nfs4")
    async with watching(poll_interval="50ms") as w:
        assert w.facts["mode"] == "poll"
        assert "nfs4" in w.facts["reason"]
        await w.detects_change()


async def test_missing_events_are_detected(watching, monkeypatch):
    from watchdog.observers import inotify_c

    monkeypatch.setattr(inotify_c.InotifyFD, "handle_event", lambda *_: None)
    async with watching(rescan_interval="50ms", poll_interval="50ms") as w:
        assert w.facts["mode"] == "inotify"
        while w.facts["mode"] != "poll":  # bounded by the test's own time limit
            await w.detects_change()
        assert w.reported == ["watcher_polls"]
        await w.detects_change()


async def test_errors_are_reported_and_do_not_stop_it(watching, monkeypatch):
    async with watching() as w:
        reloader = w.plugin._reloader
        reload, failures = reloader._reload, [PluginError("no"), ValueError("secret")]

        async def failing():
            if failures:
                raise failures.pop()
            return await reload()

        reloader._reload = failing
        w.write("One", "one")
        await until(lambda: not failures or w.reported)
        w.write("One", "two")
        await until(lambda: not failures)
        await w.detects_change("One")
        assert "secret" not in str(w.errors)


async def test_changed_settings_take_effect_immediately(watching):
    async with watching() as w:
        w.plugin.reconfigure(Settings(mode="poll", debounce=0.02, poll_interval=0.05))
        await until(lambda: w.facts["mode"] == "poll" and w.facts["reloads"])
        await w.detects_change()
        w.plugin.reconfigure(Settings(mode="off"))
        assert w.facts == {"mode": "off", "watcher_alive": False}
        w.plugin.reconfigure(Settings(debounce=0.02))
        await w.started()
        w.plugin.reconfigure(Settings(debounce=0.01))
        await w.detects_change()
        assert w.facts["mode"] == "inotify"


async def test_mode_off_disables_the_watcher(watching):
    async with watching(mode="off") as w:
        assert w.facts == {"mode": "off", "watcher_alive": False}


async def test_without_a_running_gateway_it_is_off():
    assert HotReload(None, Settings()).describe() == {"mode": "off", "watcher_alive": False}
