"""Agent Gateway: OpenAI Agents SDK modules, served as models to every OpenAI-compatible client.

This is the public door: what plugins and agents may import. It does not import the SDK, which takes over a second.
"""

from gateway_core.addresses import ForbiddenAddressError, Network
from gateway_core.addresses import resolve as resolve_host
from gateway_core.config import Config, load_config
from gateway_core.current import current_run, note_finish, pace, progress_teller
from gateway_core.description import described
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
    ToolError,
    UnavailableError,
    UpstreamError,
)
from gateway_core.file_names import is_passing
from gateway_core.gateway_tools import matches, path_name, sdk_name, tool_names, use_gateway_tool, use_gateway_tools
from gateway_core.hookspecs import Gateway, RecordStore, hookimpl
from gateway_core.isolation import IsolatedModule, load_isolated
from gateway_core.log_context import add_log_context, in_log_context, log_context
from gateway_core.provenance import ToolOrigin, mark_tool, origin_of
from gateway_core.structure import Bytes, Seconds, Secret, near_miss
from gateway_core.trace_context import set_trace_headers, trace_headers
from gateway_core.trial import command as trial_command
from gateway_core.types import (
    AgentEntry,
    BackgroundTask,
    Catalog,
    Check,
    Decision,
    DecisionMade,
    Measurement,
    ModelCall,
    Outcome,
    Principal,
    RunContext,
    ToolCall,
    ToolInfo,
    Usage,
)
from gateway_core.whereabouts import working_for

__version__ = "0.1.0"

__all__ = [
    "AgentEntry",
    "AuthenticationError",
    "BackgroundTask",
    "Bytes",
    "Catalog",
    "Check",
    "Config",
    "ConfigError",
    "Decision",
    "DecisionMade",
    "DiscoveryError",
    "ForbiddenAddressError",
    "Gateway",
    "GatewayError",
    "InvalidRequestError",
    "IsolatedModule",
    "LoadError",
    "Measurement",
    "ModelCall",
    "Network",
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
    "ToolError",
    "ToolInfo",
    "ToolOrigin",
    "UnavailableError",
    "UpstreamError",
    "Usage",
    "__version__",
    "add_log_context",
    "current_run",
    "described",
    "hookimpl",
    "in_log_context",
    "is_passing",
    "load_config",
    "load_isolated",
    "log_context",
    "mark_tool",
    "matches",
    "near_miss",
    "note_finish",
    "origin_of",
    "pace",
    "path_name",
    "progress_teller",
    "resolve_host",
    "sdk_name",
    "set_trace_headers",
    "tool_names",
    "trace_headers",
    "trial_command",
    "use_gateway_tool",
    "use_gateway_tools",
    "working_for",
]
