"""The Hypercorn server and its HTTP/1.1 disconnect detection."""
