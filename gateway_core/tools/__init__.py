"""Gateway tools as authors reference them, and where a tool comes from."""
