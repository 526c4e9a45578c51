"""Keeps the failures in a file, so that a restart does not forget them.

A file that cannot be read is no reason not to start, and one that cannot be written none to stop.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from attrs import fields

from gateway_plugins.error_recorder.ring import RecordedError

logger = logging.getLogger(__name__)


def load(file: Path) -> list[RecordedError]:
    """What was kept, in the order in which it was."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        known = {attribute.name for attribute in fields(RecordedError)}
        return [RecordedError(**{name: value for name, value in entry.items() if name in known}) for entry in kept]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError):
        logger.warning("the failures in %s cannot be read, and are left out", file)
        return []


def save(file: Path, errors: Iterable[RecordedError]) -> None:
    """Put all of them into the file, whole or not at all."""
    new = file.with_suffix(".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as written:
            json.dump([error.as_json() for error in errors], written)
        new.replace(file)
    except OSError as error:
        logger.warning("the failures cannot be kept in %s: %s", file, error.strerror)
