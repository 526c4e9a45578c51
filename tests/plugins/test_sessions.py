"""Record store and agent memories: ownership, expiry, persistence and turn order."""

import asyncio
import contextlib
import sqlite3
import stat
import time
from types import ModuleType

import openai
import pytest
from agents import Agent, function_tool
from gateway_plugins.sessions import chat_session, records
from gateway_plugins.sessions.chat_session import Memory
from gateway_plugins.sessions.records import SqliteRecords
from gateway_plugins.sessions.store import LOCK_SECONDS, Quota, Store

from gateway_core import GatewayError
from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reports(list):
    """The part of a gateway that the store uses."""

    def report(self, error) -> None:
        self.append(error)


def store_in(folder, reports=None) -> Store:
    schema = records.SCHEMA + chat_session.SCHEMA
    return Store(Reports() if reports is None else reports, lambda: folder / "sessions.db", schema, records.upgrade)


def records_of(store: Store, clock=time.time, limit=10**9) -> SqliteRecords:
    return SqliteRecords(store, lambda: limit, clock)


def memory_of(store: Store, chat: str, owner: str = "p", limit=10**9, quota=None, **options) -> Memory:
    quota = quota or Quota(lambda: limit, chat_session.MEASURE, chat_session.DELETE_OLDEST)
    return Memory(store, quota, owner, "a", chat, **options)


async def test_a_record_is_private_to_its_owner(tmp_path):
    database = store_in(tmp_path)
    store = records_of(database)
    await store.put("response", "r", "alice", b"1", seconds=None)
    await store.put("response", "r", "bob", b"2", seconds=None)
    await store.put("response", "r", "bob", b"3", seconds=None)
    await store.put("approval", "r", "bob", b"4", seconds=None)
    assert [await store.get("response", "r", owner) for owner in ("alice", "bob", "eve")] == [b"1", b"3", None]
    assert [await store.delete("response", "r", owner) for owner in ("eve", "bob", "bob")] == [False, True, False]
    await database.close()
    again = store_in(tmp_path)
    assert await records_of(again).get("response", "r", "alice") == b"1"
    assert await records_of(again).get("approval", "r", "bob") == b"4"
    await again.close()


async def test_expired_records_are_hidden_and_deleted(tmp_path):
    clock, database = Clock(), store_in(tmp_path)
    store = records_of(database, clock)
    await store.put("k", "short", "a", b"1", seconds=10)
    await store.put("k", "long", "a", b"2", seconds=None)
    clock.now += 10
    assert await store.get("k", "short", "a") is None
    assert not await store.delete("k", "short", "a")
    for number in range(100):
        await store.put("k", f"{number}", "a", b"", seconds=10)
    keys = await database.read(lambda connection: [key for (key,) in connection.execute("SELECT key FROM records")])
    assert "long" in keys
    assert "short" not in keys
    await database.close()


async def test_unused_memories_are_deleted(tmp_path):
    clock, database = Clock(), store_in(tmp_path)

    def memory(chat: str) -> Memory:
        return memory_of(database, chat, keep=100, clock=clock)

    item = {"role": "user", "content": "x"}
    for chat in ("old", "new"):
        await memory(chat).add_items([item])
    clock.now += 80
    await memory("new").add_items([item])
    clock.now += 80
    await memory("other").add_items([item])
    assert [len(await memory(chat).get_items()) for chat in ("old", "new", "other")] == [0, 2, 1]
    await memory("new").clear_session()
    assert await memory("new").get_items() == []
    assert await memory("new").pop_item() is None
    assert await memory("other").pop_item() == item
    await database.close()


async def test_each_owner_has_a_quota_and_loses_its_oldest_records(tmp_path):
    clock, database = Clock(), store_in(tmp_path)
    store = records_of(database, clock, limit=1000)

    async def present(owner: str) -> list[str]:
        return [str(n) for n in range(40) if await store.get("k", str(n), owner) is not None]

    await store.put("k", "0", "bob", b"x" * 900, seconds=None)
    for number in range(20):
        clock.now += 1
        await store.put("k", str(number), "ada", b"x" * 90, seconds=None)
        await store.touch("k", ["2"], "ada", seconds=None)
    left = await present("ada")
    assert 3 <= len(left) <= 11
    assert left[0] == "2", "a record that is used is not the oldest one"
    assert left[-1] == "19"
    assert await present("bob") == ["0"]
    with pytest.raises(GatewayError) as caught:
        await store.put("k", "x", "ada", b"x" * 1001, seconds=None)
    assert caught.value.code == "storage_quota_exceeded"
    assert await present("ada") == left
    await database.close()


async def test_a_memory_and_all_memories_of_an_owner_have_a_maximum_size(tmp_path):
    clock, database = Clock(), store_in(tmp_path)
    quota = Quota(lambda: 1000, chat_session.MEASURE, chat_session.DELETE_OLDEST)

    def memory(chat: str, owner: str = "p") -> Memory:
        return memory_of(database, chat, owner, quota=quota, max_bytes=300, clock=clock)

    items = [{"role": "user", "content": f"{n}" * 20} for n in range(8)]
    await memory("one", "other").add_items(items[:1])
    for chat in range(8):
        clock.now += 1
        await memory(str(chat)).add_items(items[:4])
        await memory(str(chat)).add_items(items[4:])
    assert [len(await memory(str(chat)).get_items()) for chat in range(8)] == [0, 0, 0, 0, 0, 6, 6, 6]
    assert (await memory("7").get_items())[-1] == items[-1]
    assert len(await memory("one", "other").get_items()) == 1
    await database.close()


async def test_a_file_of_an_earlier_version_is_upgraded(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as old, old:
        old.execute(
            "CREATE TABLE records (kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, value BLOB NOT NULL,"
            " expires REAL, PRIMARY KEY (kind, key, owner)) WITHOUT ROWID"
        )
        old.execute("INSERT INTO records VALUES ('response', 'r', 'ada', x'31', NULL)")
    database = store_in(tmp_path)
    store = records_of(database)
    assert await store.get("response", "r", "ada") == b"1"
    await store.put("response", "s", "ada", b"2", seconds=None)
    assert await store.get("response", "s", "ada") == b"2"
    await database.close()


def write_garbage(path) -> None:
    path.write_bytes(b"no database" * 1000)


def write_other_tables(path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE records (a TEXT)")


def damage(path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript(records.SCHEMA)
        rows = [(n, b"x" * 999) for n in range(99)]
        database.executemany("INSERT INTO records VALUES ('k', ?, 'a', ?, NULL, 0)", rows)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [write_garbage, write_other_tables, damage])
async def test_a_corrupt_file_is_set_aside_and_reported(tmp_path, spoil):
    spoil(tmp_path / "sessions.db")
    reports = Reports()
    database = store_in(tmp_path, reports)
    store = records_of(database)
    await store.put("k", "1", "a", b"1", seconds=None)
    assert await store.get("k", "1", "a") == b"1"
    assert [report.code for report in reports] == ["state_replaced"]
    assert (tmp_path / "sessions.broken").exists()
    await database.close()


async def test_a_full_disk_is_reported_once_and_recovers(tmp_path):
    reports = Reports()
    database = store_in(tmp_path, reports)
    store = records_of(database)
    await store.put("k", "1", "a", b"1", seconds=None)
    pages = await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 12").fetchone())
    assert pages == (12,)
    for _ in range(3):
        with pytest.raises(GatewayError) as caught:
            await store.put("k", "2", "a", b"x" * 100_000, seconds=None)
        assert caught.value.code == "state_not_writable"
    assert await store.get("k", "1", "a") == b"1", "reading still works"
    assert database.failing
    assert [report.code for report in reports] == ["state_not_writable"]
    await database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.put("k", "2", "a", b"x" * 100_000, seconds=None)
    assert not database.failing
    await database.close()


async def test_a_locked_file_delays_one_request_only(tmp_path):
    database = store_in(tmp_path)
    store = records_of(database)
    await store.put("k", "1", "a", b"1", seconds=None)
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(GatewayError):
            await store.put("k", "2", "a", b"2", seconds=None)
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(GatewayError):
                await store.put("k", "2", "a", b"2", seconds=None)
        assert time.monotonic() - began < LOCK_SECONDS
    await database.close()


def module(agent: Agent, **settings) -> ModuleType:
    made = ModuleType("made")
    made.agent = agent  # type: ignore[attr-defined]
    made.__gateway__ = settings  # type: ignore[attr-defined]
    return made


def remembering(*turns, memory="session"):
    @function_tool
    def look(what: str) -> str:
        """Look."""
        return f"seen {what}"

    model = script(*turns)
    return model, module(Agent(name="x", tools=[look], model=model), memory=memory)


async def say(g, *messages, chat: str | None = "c1", key: str | None = None) -> str:
    roles = ("user", "assistant")
    sent = [{"role": roles[index % 2], "content": text} for index, text in enumerate(messages)]
    headers = ({"x-agent-gateway-session": chat} if chat else {}) | ({"x-person": key} if key else {})
    answer = await g.openai.chat.completions.create(model="X", messages=sent, extra_headers=headers)
    return answer.choices[0].message.content


def received(model, number: int = -1) -> list:
    """Returns the model's input: texts and tool outputs."""

    def text(item):
        content = item.get("content", item.get("output", item.get("name")))
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    return [text(item) for item in model.calls[number].input]


LOOKED = ["look", "seen it"]


async def test_an_agent_remembers_tool_outputs(tmp_path):
    model, agent = remembering(call("look", what="it"), "Seen.", "Yes.", "As before.")
    config = {"state": {"folder": str(tmp_path)}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        assert await say(g, "Look!") == "Seen."
        assert await say(g, "Look!", "Seen.", "Did you?") == "Yes."
        assert received(model) == ["Look!", *LOOKED, "Seen.", "Did you?"]
    assert stat.S_IMODE((tmp_path / "sessions.db").stat().st_mode) == 0o600
    async with gateway_in_memory({"X": agent}, config=config) as g:
        # A client that sends only the new message.
        assert await say(g, "And now?") == "As before."
        assert received(model) == ["Look!", *LOOKED, "Seen.", "Did you?", "Yes.", "And now?"]


async def test_editing_an_earlier_message_discards_later_memory():
    model, agent = remembering("One.", call("look", what="it"), "Two.", "Two again.", "Three.")
    async with gateway_in_memory({"X": agent}) as g:
        await say(g, "1")
        await say(g, "1", "One.", "2")
        await say(g, "1", "One.", "2, but other")
        assert received(model) == ["1", "One.", "2, but other"]
        await say(g, "1", "One.", "2, but other", "Two again.", "3")
        assert received(model) == ["1", "One.", "2, but other", "Two again.", "3"]


class People:
    def __init__(self, *_):
        pass

    @hookimpl
    async def authenticate(self, request):
        return Principal(request.headers.get("x-person", "nobody"))


async def test_memories_are_isolated():
    model, agent = remembering("a", "b", "c", "d")
    async with gateway_in_memory({"X": agent, "Y": agent}, plugins={"people": People}) as g:
        await say(g, "mine", chat="c", key="alice")
        await say(g, "other principal", chat="c", key="bob")
        assert received(model) == ["other principal"]
        await say(g, "other chat", chat="d", key="alice")
        assert received(model) == ["other chat"]
        await say(g, "no chat", chat=None, key="alice")
        assert received(model) == ["no chat"]


async def test_memory_is_opt_in():
    model, agent = remembering("a", "b", memory=None)
    async with gateway_in_memory({"X": agent}) as g:
        await say(g, "1")
        await say(g, "2")
    assert received(model) == ["2"]


async def test_without_the_plugin_the_clients_messages_are_used():
    model, agent = remembering("a", "b")
    config = {"plugins": {"sessions": {"enabled": False}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        await say(g, "1")
        await say(g, "1", "a, as the client has it", "2")
    assert received(model) == ["1", "a, as the client has it", "2"]


async def test_an_existing_chat_is_imported_into_the_memory():
    model, agent = remembering("a", "b")
    async with gateway_in_memory({"X": agent}) as g:
        await say(g, "1", "a", "2")
        assert received(model) == ["1", "a", "2"]
        await say(g, "1", "a", "2", "a", "3")
        assert received(model) == ["1", "a", "2", "a", "3"]


async def test_a_long_chat_is_limited_to_its_newest_items():
    model, agent = remembering(*"abcd")
    config = {"plugins": {"sessions": {"history": 2}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        for text in "1234":
            await say(g, text)
    assert received(model) == ["3", "c", "4"]


async def test_a_limit_removes_outputs_without_their_call():
    model, agent = remembering(call("look", what="it"), "Seen.", "b")
    config = {"plugins": {"sessions": {"history": 2}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        await say(g, "1")
        await say(g, "2")
    assert received(model) == ["Seen.", "2"]


async def test_runs_of_one_chat_are_serialized():
    begun, go_on = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait."""
        begun.set()
        await go_on.wait()
        return "waited"

    model = script(call("wait"), "first", "second")
    agent = module(Agent(name="x", tools=[wait], model=model), memory="session")
    async with gateway_in_memory({"X": agent}) as g, asyncio.timeout(10):
        first = asyncio.create_task(say(g, "1"))
        await begun.wait()
        second = asyncio.create_task(say(g, "2"))
        other, _ = await asyncio.wait([second], timeout=0.05)
        assert not other
        go_on.set()
        assert [await first, await second] == ["first", "second"]
    assert received(model) == ["1", "wait", "waited", "first", "2"]


async def test_an_approval_continues_with_the_memory():
    @function_tool(needs_approval=True)
    def delete(path: str) -> str:
        """Delete."""
        return f"deleted {path}"

    model = script(call("delete", path="/x"), "Done.", "Yes, it is gone.")
    agent = module(Agent(name="x", tools=[delete], model=model), memory="session")
    async with gateway_in_memory({"X": agent}) as g:
        asked = await say(g, "Delete it.")
        assert await say(g, "Delete it.", asked, "approve") == "Done."
        await say(g, "Delete it.", asked, "approve", "Done.", "Gone?")
    assert received(model) == ["Delete it.", "delete", "deleted /x", "Done.", "Gone?"]


@pytest.mark.parametrize("memory", ["forever", 1, True])
async def test_an_unknown_memory_setting_is_rejected(memory):
    _, agent = remembering("a", memory=memory)
    async with gateway_in_memory({"X": agent}) as g:
        with pytest.raises(openai.APIStatusError) as refused:
            await say(g, "1")
        assert refused.value.status_code == 503
        [agent] = (await g.http.get("/admin/agents")).json()["agents"]
        assert agent["diagnosis"]["kind"] == "export"
        assert repr(memory) in agent["diagnosis"]["message"]


async def test_a_workflow_cannot_have_a_memory():
    async def run_workflow(workflow_input):
        return "done"

    made = ModuleType("made")
    made.run_workflow = run_workflow  # type: ignore[attr-defined]
    made.__gateway__ = {"memory": "session"}  # type: ignore[attr-defined]
    async with gateway_in_memory({"X": made}) as g:
        [agent] = (await g.http.get("/admin/agents")).json()["agents"]
        assert "is not supported for workflows" in agent["diagnosis"]["message"]
