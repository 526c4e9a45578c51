"""Decides whether output is colored: https://no-color.org and https://force-color.org."""

import os
from typing import TextIO


def color_setting() -> bool | None:
    """Return the choice of the environment, or `None` if the output decides. NO_COLOR precedes FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if forced := os.environ.get("FORCE_COLOR"):
        return forced != "0"
    return False if os.environ.get("TERM") == "dumb" else None


def use_color(stream: TextIO) -> bool:
    """Whether to color the text that is written to a stream: on a terminal, unless the environment decides."""
    chosen = color_setting()
    return stream.isatty() if chosen is None else chosen
