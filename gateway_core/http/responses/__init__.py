"""The Responses API: parsing, the endpoint, stored items and serialization."""
