"""Agent Gateway: OpenAI Agents SDK modules, served as models to every OpenAI-compatible client.

This is the public door: what plugins and agents may import. It does not import the SDK, which takes over a second.
"""

from gateway_core.config import Config, load_config
from gateway_core.errors import (
    AuthenticationError,
    ConfigError,
    DiscoveryError,
    GatewayError,
    InvalidRequestError,
    LoadError,
    NotFoundError,
    PermissionDeniedError,
    PluginError,
    RateLimitError,
    UnavailableError,
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
    "Config",
    "ConfigError",
    "Decision",
    "DecisionMade",
    "DiscoveryError",
    "Gateway",
    "GatewayError",
    "InvalidRequestError",
    "IsolatedModule",
    "LoadError",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "PluginError",
    "Principal",
    "RateLimitError",
    "RecordStore",
    "RunContext",
    "Seconds",
    "Secret",
    "ToolCall",
    "ToolInfo",
    "ToolOrigin",
    "UnavailableError",
    "UpstreamError",
    "Usage",
    "__version__",
    "hookimpl",
    "load_config",
    "load_isolated",
    "mark_tool",
    "trial_command",
]
