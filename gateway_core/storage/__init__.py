"""Where state is kept: the in-memory record store and the state directory."""
