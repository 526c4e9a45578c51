"""Agent Gateway: OpenAI Agents SDK modules, served as models to every OpenAI-compatible client.

This is the public door: what plugins and agents may import. It does not import the SDK, which takes over a second.
"""

from gateway_core.errors import (
    AuthenticationError,
    ConfigError,
    DiscoveryError,
    GatewayError,
    InvalidRequestError,
    LoadError,
    PermissionDeniedError,
    PluginError,
    UpstreamError,
)
from gateway_core.hookspecs import Gateway, RecordStore, hookimpl
from gateway_core.isolation import IsolatedModule, load_isolated
from gateway_core.provenance import ToolOrigin, mark_tool
from gateway_core.structure import Bytes, Seconds, Secret
from gateway_core.trial import command as trial_command
from gateway_core.types import (
    AgentEntry,
    Catalog,
    Decision,
    DecisionMade,
    Outcome,
    Principal,
    RunContext,
    ToolCall,
    ToolInfo,
    Usage,
)

__version__ = "0.1.0"

__all__ = [
    "AgentEntry",
    "AuthenticationError",
    "Bytes",
    "Catalog",
    "ConfigError",
    "Decision",
    "DecisionMade",
    "DiscoveryError",
    "Gateway",
    "GatewayError",
    "InvalidRequestError",
    "IsolatedModule",
    "LoadError",
    "Outcome",
    "PermissionDeniedError",
    "PluginError",
    "Principal",
    "RecordStore",
    "RunContext",
    "Seconds",
    "Secret",
    "ToolCall",
    "ToolInfo",
    "ToolOrigin",
    "UpstreamError",
    "Usage",
    "__version__",
    "hookimpl",
    "load_isolated",
    "mark_tool",
    "trial_command",
]
