"""What plugins get as their gateway when nothing is served: the command line asks them for facts only."""

from gateway_core.errors import GatewayError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import AuditContext, Catalog, Finding, Measurement


class NullGateway:
    """Implements `hookspecs.Gateway` with nothing behind it."""

    catalog = Catalog()

    def __init__(self) -> None:
        self.reported: list[GatewayError] = []
        self.hooks = Hooks({})
        """The hooks of the plugins that were loaded with this gateway, set afterwards."""

    async def reload(self) -> Catalog:
        """Nothing is loaded."""
        return self.catalog

    def measurements(self) -> list[Measurement]:
        """Nothing is measured."""
        return []

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the findings of the plugins in `hooks`."""
        return self.hooks.audit_findings(context)

    def state_folder(self, *, create: bool = True) -> None:
        """Nothing is kept."""

    def report(self, error: GatewayError) -> None:
        """Keep it for whoever asked."""
        self.reported.append(error)
