"""Storage: the in-memory record store, the state directory and SQLite databases in it."""
