"""The catalog of served agents: import, export resolution, validation and tool binding."""
