"""Saves the recorded errors to a file, so that they survive a restart.

Read and write errors are logged; they do not stop the gateway.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from attrs import asdict, fields

from gateway_plugins.error_recorder.ring_buffer import RecordedError

logger = logging.getLogger(__name__)


def load(file: Path) -> list[RecordedError]:
    """Loads the saved errors, in the order in which they were saved."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        known = {attribute.name for attribute in fields(RecordedError)}
        return [RecordedError(**{name: value for name, value in entry.items() if name in known}) for entry in kept]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError):
        logger.warning("cannot read the recorded errors in %s; starting without them", file)
        return []


def save(file: Path, errors: Iterable[RecordedError]) -> None:
    """Saves all errors atomically."""
    new = file.with_suffix(".new")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as written:
            json.dump([asdict(error) for error in errors], written)
        new.replace(file)
    except OSError as error:
        logger.warning("cannot save the recorded errors to %s: %s", file, error.strerror)
