"""Configuration: the settings classes, their TOML and environment sources, and value conversion."""
