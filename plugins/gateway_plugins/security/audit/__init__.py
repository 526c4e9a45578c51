"""The tamper-evident audit log: writing, hash chain and verification."""
