"""The command `agent-gateway audit`, which reports security problems of the settings, files and packages.

It is read-only and serves no requests. Its own checks cover plain-text secrets, file permissions and installed
packages; the other plugins contribute findings through the hook `audit_findings`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway_core import Gateway, hookimpl

if TYPE_CHECKING:
    import click


class NightlyAudit:
    """The plugin `nightly_audit`."""

    def __init__(self, gateway: Gateway, config: object) -> None:
        self._gateway = gateway

    @hookimpl
    def commands(self) -> "Iterable[click.Command]":
        """The group `audit`."""
        from gateway_plugins.nightly_audit.command import audit_command

        return [audit_command(self._gateway)]
