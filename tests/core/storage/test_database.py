"""A database runs its operations in transactions, is private to its user, and can be opened again."""

import sqlite3
import stat

import pytest

from gateway_core import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL)"


async def add(database: Database, text: str | None) -> None:
    await database.run(lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (text,)))


async def notes(database: Database) -> list[str]:
    rows = await database.run(lambda connection: connection.execute("SELECT text FROM notes").fetchall())
    return [text for (text,) in rows]


async def test_data_survives_closing_and_only_the_user_can_read_it(tmp_path):
    database = Database(lambda: tmp_path / "notes.db", SCHEMA, durable=True)
    await add(database, "one")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"notes.db": 0o600, "notes.db-wal": 0o600, "notes.db-shm": 0o600}
    await database.close()
    assert await notes(database) == ["one"]
    await database.close()
    await database.close()


async def test_a_failed_operation_is_rolled_back():
    database = Database(lambda: None, SCHEMA)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('lost')")
        raise ValueError("abort")

    await add(database, "kept")
    with pytest.raises(ValueError, match="abort"):
        await database.run(fail)
    with pytest.raises(sqlite3.IntegrityError):
        await add(database, None)
    assert await notes(database) == ["kept"]
    await database.close()


async def test_a_file_that_cannot_be_opened_is_opened_on_a_later_operation(tmp_path):
    path = tmp_path / "later" / "notes.db"
    database = Database(lambda: path, SCHEMA)
    with pytest.raises(OSError, match="No such file"):
        await notes(database)
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        await notes(database)
    path.unlink()
    assert await notes(database) == []
    await database.close()
