"""Runs: the engine, active runs, the SDK runner, and the handling of model and tool calls."""
