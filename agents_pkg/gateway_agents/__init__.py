"""Sample agents, one a module, each found through an entry point in `pyproject.toml`.

They are plain modules of the OpenAI Agents SDK, and none names a model. `SampleAgent` and `Spark` use a tool of the
gateway's beside their own; the others do not know the gateway.
"""
