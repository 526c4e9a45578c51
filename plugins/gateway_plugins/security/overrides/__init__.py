"""Temporary overrides of rules: grants, expiry, storage and routes."""
