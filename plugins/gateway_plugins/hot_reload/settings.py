"""Defines the settings of `[plugins.hot_reload]`."""

from typing import Literal

from attrs import frozen

from gateway_core import Seconds, Timeout


@frozen
class Settings:
    """`[plugins.hot_reload]`."""

    mode: Literal["auto", "inotify", "poll", "off"] = "auto"
    """Method of detecting changes. `auto` uses file system events if they are available, and polls otherwise."""
    debounce: Seconds = Seconds(0.2)
    """Time without changes before a reload."""
    debounce_limit: Seconds = Seconds(2.0)
    """Maximum delay of a reload by further changes."""
    poll_interval: Timeout = Timeout(1.0)
    """Interval of the scans when polling."""
    rescan_interval: Timeout = Timeout(30.0)
    """Interval of the additional scans when file system events are used."""
