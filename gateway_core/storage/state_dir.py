"""The folder in which the gateway keeps what must outlive its process.

It makes the folder and knows none of what is in it.
"""

from pathlib import Path

from gateway_core.errors import ConfigError


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there, which nobody but the gateway's own user may read.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {path} cannot be made: {error.strerror}",
            source="[state] folder",
            hint='choose another one, or set it to "" and nothing is kept on disk',
        ) from error
    return path
