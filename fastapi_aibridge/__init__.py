"""A FastAPI plugin that gives each user of your app an AI gateway."""

from importlib import import_module
from typing import TYPE_CHECKING

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
from .plugin import AIBridge, get_bridge
from .pool.metrics import PoolMetrics
from .principal import Principal
from .recorder import (
    Ending,
    Facts,
    Interception,
    InterceptionQuery,
    InterceptionRecord,
    InterceptionStore,
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

if TYPE_CHECKING:
    from .mcp.builder import MCPProxyBuilder
    from .mcp.server import MCPServer
    from .money.budget_state import BudgetState
    from .money.budget_warnings import BudgetWarning
    from .money.caller_usage import CallerUsage
    from .pool.pool import CachedBridgePool
    from .providers.anthropic import AnthropicProvider
    from .providers.openai import OpenAIProvider
    from .providers.provider import Provider
    from .providers.source import ProviderSource
    from .recorder.memory import MemoryRecorder
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

_AT_FIRST_USE = {
    "AnthropicProvider": ".providers.anthropic",
    "BudgetState": ".money.budget_state",
    "BudgetWarning": ".money.budget_warnings",
    "CachedBridgePool": ".pool.pool",
    "CallerUsage": ".money.caller_usage",
    "MCPProxyBuilder": ".mcp.builder",
    "MCPServer": ".mcp.server",
    "MemoryRecorder": ".recorder.memory",
    "OpenAIProvider": ".providers.openai",
    "Provider": ".providers.provider",
    "ProviderSource": ".providers.source",
    "Tool": ".tools",
}
"""Public names imported at their first use. They belong to the engine, which an app loads only when it starts."""


def __getattr__(name: str) -> object:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_AT_FIRST_USE[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_AT_FIRST_USE})
