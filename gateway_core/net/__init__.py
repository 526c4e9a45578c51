"""Network safety: address checks and an HTTP transport that refuses private addresses (SSRF guard)."""
