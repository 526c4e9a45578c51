"""References to gateway tools in agents, and the origin of tools."""
