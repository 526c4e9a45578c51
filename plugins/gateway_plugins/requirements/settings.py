"""The settings of the plugin."""

from attrs import frozen


@frozen
class Settings:
    """`[plugins.requirements]`."""

    check: bool = True
    """Whether an agent is checked before it is imported."""
    retry: bool = True
    """Whether the gateway reloads when packages were installed while an agent lacks one."""
    auto_install: bool = False
    """Whether missing requirements are then installed."""
    allow_source: bool = False
    """Whether packages may be built from source, which runs their code at installation."""
