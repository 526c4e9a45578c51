"""`GET /openapi.json`: endpoint descriptions, schemas and the document."""
