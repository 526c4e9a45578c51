"""Runs: the engine, one active run, the SDK runner, and what happens around model and tool calls."""
