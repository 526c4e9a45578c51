"""Creates the state directory, which contains the data that the gateway keeps across restarts.

Other modules and plugins manage its contents.
"""

from pathlib import Path

from gateway_core.errors import ConfigError


def make_folder(path: Path) -> Path:
    """Create the directory if it does not exist, accessible to the gateway's user only, and return it.

    Raises:
        ConfigError: The directory cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot create the state directory {path}: {error.strerror}",
            source="[state] folder",
            hint='choose another directory, or set it to "" to disable persistence',
        ) from error
    return path
