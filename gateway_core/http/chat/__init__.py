"""`POST /v1/chat/completions`: parsing, the endpoint and serialization."""
