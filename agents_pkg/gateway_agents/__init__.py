"""Sample agents, one a module, each found through an entry point in `pyproject.toml`.

They are written for the OpenAI Agents SDK alone: none imports the gateway, and none names a model.
"""
