"""Agent Gateway: serves OpenAI Agents SDK modules as models to every OpenAI-compatible client.

This package exports the public API: the names that plugins and agents may import. Importing it does not import the SDK,
which takes more than a second.
"""

from typing import TYPE_CHECKING, Any

from gateway_core.catalog.drop_in_folder import FoundAgent, agent_files, find_agents
from gateway_core.catalog.ignored_files import is_ignored_file
from gateway_core.catalog.import_probe import command as import_probe_command
from gateway_core.catalog.module_isolation import IsolatedModule, load_isolated
from gateway_core.config.hosts import Address, AllowedHost, Origin, Url, check_url, host_and_port
from gateway_core.config.problems import Problems, named_tables
from gateway_core.config.settings import SUSPICIOUS, Config, load_config
from gateway_core.config.values import Amount, Bytes, Count, Seconds, Secret, Size, Timeout, did_you_mean
from gateway_core.errors import (
    FAILED_AFTER_TOOL,
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
from gateway_core.hooks.specs import Gateway, RecordStore, hookimpl
from gateway_core.http.json_io import json_response, read_json
from gateway_core.http.openapi.describe import described
from gateway_core.http.sent_response import SentResponse, response_of
from gateway_core.net.addresses import Network
from gateway_core.net.json_size import LARGE_BYTES, has_more_values, read_off_loop
from gateway_core.observability.log_context import add_log_context, in_log_context, log_context
from gateway_core.observability.stderr_tail import StderrTail
from gateway_core.observability.terminal import use_color
from gateway_core.observability.trace_context import set_trace_headers, trace_headers
from gateway_core.runs.current_run import apply_backpressure, current_run, progress_reporter, record_finish_reason
from gateway_core.runs.stack_attribution import attributed_run
from gateway_core.storage.database import Database
from gateway_core.tools.call_pairs import pair_calls
from gateway_core.tools.origin import ToolOrigin, mark_tool, origin_of
from gateway_core.tools.patterns import PatternSet, Segments, parse_pattern, split_name
from gateway_core.tools.references import (
    gateway_tool_name,
    sdk_tool_name,
    tool_names,
    use_gateway_tool,
    use_gateway_tools,
)
from gateway_core.types import (
    AgentEntry,
    AuditContext,
    BackgroundTask,
    Catalog,
    Check,
    Decision,
    DecisionMade,
    Finding,
    Measurement,
    ModelCall,
    Outcome,
    Principal,
    RunContext,
    Severity,
    ToolCall,
    ToolInfo,
    Usage,
)

if TYPE_CHECKING:
    from gateway_core.net.guarded_transport import GuardedTransport, RefusedAddressError, UnresolvedHostError
    from gateway_core.runs.model_settings import settings_for

__version__ = "0.1.0"

__all__ = [
    "FAILED_AFTER_TOOL",
    "LARGE_BYTES",
    "SUSPICIOUS",
    "Address",
    "AgentEntry",
    "AllowedHost",
    "Amount",
    "AuditContext",
    "AuthenticationError",
    "BackgroundTask",
    "Bytes",
    "Catalog",
    "Check",
    "Config",
    "ConfigError",
    "Count",
    "Database",
    "Decision",
    "DecisionMade",
    "DiscoveryError",
    "Finding",
    "FoundAgent",
    "Gateway",
    "GatewayError",
    "GuardedTransport",
    "InvalidRequestError",
    "IsolatedModule",
    "LoadError",
    "Measurement",
    "ModelCall",
    "Network",
    "NotFoundError",
    "Origin",
    "Outcome",
    "PatternSet",
    "PermissionDeniedError",
    "PluginError",
    "Principal",
    "Problems",
    "RateLimitError",
    "RecordStore",
    "RefusedAddressError",
    "RunContext",
    "Seconds",
    "Secret",
    "Segments",
    "SentResponse",
    "Severity",
    "Size",
    "StderrTail",
    "Timeout",
    "ToolCall",
    "ToolError",
    "ToolInfo",
    "ToolOrigin",
    "UnavailableError",
    "UnresolvedHostError",
    "UpstreamError",
    "Url",
    "Usage",
    "__version__",
    "add_log_context",
    "agent_files",
    "apply_backpressure",
    "attributed_run",
    "check_url",
    "current_run",
    "described",
    "did_you_mean",
    "find_agents",
    "gateway_tool_name",
    "has_more_values",
    "hookimpl",
    "host_and_port",
    "import_probe_command",
    "in_log_context",
    "is_ignored_file",
    "json_response",
    "load_config",
    "load_isolated",
    "log_context",
    "mark_tool",
    "named_tables",
    "origin_of",
    "pair_calls",
    "parse_pattern",
    "progress_reporter",
    "read_json",
    "read_off_loop",
    "record_finish_reason",
    "response_of",
    "sdk_tool_name",
    "set_trace_headers",
    "settings_for",
    "split_name",
    "tool_names",
    "trace_headers",
    "use_color",
    "use_gateway_tool",
    "use_gateway_tools",
]


def __getattr__(name: str) -> Any:
    """Import these at their first use: the HTTP client takes a tenth of a second, and the SDK more than a second."""
    if name == "settings_for":
        from gateway_core.runs import model_settings

        return model_settings.settings_for
    if name in ("GuardedTransport", "RefusedAddressError", "UnresolvedHostError"):
        from gateway_core.net import guarded_transport

        return getattr(guarded_transport, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
