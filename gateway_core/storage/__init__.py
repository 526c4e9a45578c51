"""Storage: the in-memory record store and the state directory."""
