"""The settings: their models, their sources, and the messages for invalid values."""

from .diagnostics import warn_of_base_urls
from .limit_rules import LimitRule
from .model import DEFAULT_KEYS, RESERVED_NAMES, Settings, WrongMember, explain, named_provider
from .prices import ModelPrices, TokenPrices
from .sections import (
    DEFAULT_BASE_URLS,
    CircuitBreakerSettings,
    LimitSettings,
    MCPServerSettings,
    MemorySettings,
    MetricsSettings,
    PoolSettings,
    ProviderSettings,
    RecorderSettings,
)
from .sources import PREFIX

__all__ = [
    "DEFAULT_BASE_URLS",
    "DEFAULT_KEYS",
    "PREFIX",
    "RESERVED_NAMES",
    "CircuitBreakerSettings",
    "LimitRule",
    "LimitSettings",
    "MCPServerSettings",
    "MemorySettings",
    "MetricsSettings",
    "ModelPrices",
    "PoolSettings",
    "ProviderSettings",
    "RecorderSettings",
    "Settings",
    "TokenPrices",
    "WrongMember",
    "explain",
    "named_provider",
    "warn_of_base_urls",
]
