"""The settings of `[plugins.hot_reload]`.

They are values: nothing here watches anything.
"""

from typing import Literal

from attrs import frozen

from gateway_core import Seconds


@frozen
class Settings:
    """`[plugins.hot_reload]`."""

    mode: Literal["auto", "inotify", "poll", "off"] = "auto"
    """How changes are noticed; `auto` takes the system's events where they arrive, and else looks again and again."""
    debounce: Seconds = Seconds(0.2)
    """Files must be quiet for this long."""
    debounce_limit: Seconds = Seconds(2.0)
    """A change never waits longer than this."""
    poll_interval: Seconds = Seconds(1.0)
    """Between two looks when polling."""
    rescan_interval: Seconds = Seconds(30.0)
    """Between two looks beside the system's events."""
