"""A FastAPI plugin that gives each user of your app an AI gateway."""

from .bridge import RequestBridge
from .budget import Budget
from .errors import (
    AIBridgeError,
    BuildTimeout,
    ConfigurationError,
    GatewayError,
    PoolShutdown,
    PrincipalError,
    RecorderUnavailable,
    SettingsError,
)
from .mcp import MCPProxyBuilder, MCPServer
from .money.budget_state import BudgetState
from .money.budget_warnings import BudgetWarning
from .money.caller_usage import CallerUsage
from .plugin import AIBridge, get_bridge
from .pool import CachedBridgePool, PoolMetrics
from .principal import Principal
from .providers import AnthropicProvider, OpenAIProvider, Provider
from .providers.source import ProviderSource
from .recorder import (
    Ending,
    Facts,
    Interception,
    InterceptionQuery,
    InterceptionRecord,
    InterceptionStore,
    MemoryRecorder,
    Page,
    Prompt,
    Recorder,
    Status,
    Thought,
    TokenUsage,
    ToolUsage,
)
from .settings import (
    CircuitBreakerSettings,
    LimitSettings,
    MCPServerSettings,
    MemorySettings,
    MetricsSettings,
    PoolSettings,
    ProviderSettings,
    RecorderSettings,
    Settings,
)
from .tools import Tool

__version__ = "0.1.0"

__all__ = [
    "AIBridge",
    "AIBridgeError",
    "AnthropicProvider",
    "Budget",
    "BudgetState",
    "BudgetWarning",
    "BuildTimeout",
    "CachedBridgePool",
    "CallerUsage",
    "CircuitBreakerSettings",
    "ConfigurationError",
    "Ending",
    "Facts",
    "GatewayError",
    "Interception",
    "InterceptionQuery",
    "InterceptionRecord",
    "InterceptionStore",
    "LimitSettings",
    "MCPProxyBuilder",
    "MCPServer",
    "MCPServerSettings",
    "MemoryRecorder",
    "MemorySettings",
    "MetricsSettings",
    "OpenAIProvider",
    "Page",
    "PoolMetrics",
    "PoolSettings",
    "PoolShutdown",
    "Principal",
    "PrincipalError",
    "Prompt",
    "Provider",
    "ProviderSettings",
    "ProviderSource",
    "Recorder",
    "RecorderSettings",
    "RecorderUnavailable",
    "RequestBridge",
    "Settings",
    "SettingsError",
    "Status",
    "Thought",
    "TokenUsage",
    "Tool",
    "ToolUsage",
    "__version__",
    "get_bridge",
]
