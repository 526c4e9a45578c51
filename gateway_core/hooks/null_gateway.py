"""A gateway without agents, for commands that load plugins but do not serve."""

from gateway_core.config.settings import Config, load_config
from gateway_core.errors import GatewayError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import AuditContext, Catalog, Finding, Measurement


class NullGateway:
    """Implements `hooks.specs.Gateway` with an empty catalog and no state directory.

    Args:
        config: The settings. Default: those without a file and without the environment.
    """

    catalog = Catalog()

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or load_config(environ={})
        self.reported: list[GatewayError] = []
        self.hooks = Hooks({})
        """The hooks of the plugins that were loaded with this gateway, set afterwards."""

    async def reload(self) -> Catalog:
        """Return the empty catalog."""
        return self.catalog

    def measurements(self) -> list[Measurement]:
        """Return an empty list."""
        return []

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the findings of the plugins in `hooks`."""
        return self.hooks.audit_findings(context)

    def state_folder(self, *, create: bool = True) -> None:
        """Return `None`: persistence is disabled."""

    def report(self, error: GatewayError) -> None:
        """Append the error to `reported`."""
        self.reported.append(error)
