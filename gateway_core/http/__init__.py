"""The OpenAI surface over HTTP. It renders what runs tell, and starts no run by itself."""
