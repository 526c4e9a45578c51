"""Network safety: address checks and an HTTP transport that rejects private addresses (SSRF guard)."""
