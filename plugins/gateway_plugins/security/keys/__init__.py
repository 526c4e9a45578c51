"""API keys: the key ring, credentials, expiry, admin keys and the `keys` command."""
