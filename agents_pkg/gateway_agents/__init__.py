"""Sample agents, one per module, each with an entry point in `pyproject.toml`.

They are plain modules of the OpenAI Agents SDK, and none names a model. `SampleAgent` and `Spark` use a gateway tool in
addition to their own tools; the others do not import the gateway.
"""
