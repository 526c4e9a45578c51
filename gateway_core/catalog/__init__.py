"""The served agents: discovery, import, export resolution, validation, tool binding and the catalog itself."""
