"""The sections of the settings: one model for each."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator

from ..masking import masked_secret
from .limit_rules import LONGEST_WINDOW, MAX_RULES, Amount, LimitRule
from .values import (
    CAFile,
    ClientCertificate,
    Count,
    DatabaseURL,
    Headers,
    Key,
    NonNegativeSeconds,
    PositiveSeconds,
    Proxy,
    RelayedPath,
    SecretURL,
    Size,
)

DEFAULT_BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""The public API of each provider type."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class CircuitBreakerSettings(_Section):
    """The circuit breakers of a provider's endpoints and models. Times are in seconds."""

    enabled: bool = True
    failure_threshold: Count = Field(default=5, ge=1)
    interval: PositiveSeconds = 10.0
    timeout: PositiveSeconds = 30.0
    max_requests: Count = Field(default=3, ge=1)


class ProviderSettings(_Section):
    """One provider. `base_url` includes the version path as the vendor's SDK expects it; times are in seconds."""

    type: str = ""
    base_url: HttpUrl | None = None
    api_key: Key | None = None
    api_keys: tuple[Key, ...] = ()
    enabled: bool = True
    max_retries: Count = Field(default=2, ge=0, le=10)
    connect_timeout: PositiveSeconds = 10.0
    first_byte_timeout: PositiveSeconds | None = None
    """Seconds until a response must begin; None for as long as `read_timeout`."""
    read_timeout: PositiveSeconds = 600.0
    extra_headers: Headers = Field(default_factory=dict)
    send_actor_headers: bool = False
    byok: bool = False
    allow_organisation_changes: bool = False
    """Whether callers may use our key to change what concerns all its users, such as to delete a fine-tuned model."""
    pass_through: tuple[RelayedPath, ...] = ()
    """Further paths that are relayed without being parsed."""
    ca_file: CAFile | None = None
    client_cert: ClientCertificate | None = None
    proxy: Proxy | None = None
    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()

    @field_validator("base_url")
    @classmethod
    def _plain_base_url(cls, url: HttpUrl | None) -> HttpUrl | None:
        if url is not None and (url.query or url.fragment or url.username or url.password):
            raise ValueError("a base URL has no query, fragment or credentials; the key belongs into API_KEY")
        return url

    @property
    def keys(self) -> tuple[SecretStr, ...]:
        """The centralized credentials, first `api_key`, then `api_keys`."""
        return tuple(key for key in (self.api_key, *self.api_keys) if key)


class MCPServerSettings(_Section):
    """One MCP server. `{session_key}` in a header value is replaced by the principal's session key."""

    url: SecretURL
    headers: Headers = Field(default_factory=dict)
    tool_allow: re.Pattern[str] | None = None
    tool_deny: re.Pattern[str] | None = None


class PoolSettings(_Section):
    """The number of bridges that are kept, and for how long, in seconds (or with a unit like `15m`)."""

    max_items: Count = Field(default=5000, ge=1)
    ttl: PositiveSeconds = 900.0
    drain_timeout: PositiveSeconds = 600.0


class LimitSettings(_Section):
    """Limits of one process, or with Redis of all processes together. Times are in seconds; None means no limit, except
    for `max_concurrent_per_principal`, where it means half of `max_concurrent`.
    """

    max_concurrent: Count = Field(default=4096, ge=1)
    max_concurrent_per_principal: Count | None = Field(default=None, ge=1)
    max_wait: NonNegativeSeconds = 3.0
    """Seconds for which a request over its principal's limit of concurrent ones waits for its turn."""
    requests: Amount | None = None
    """Requests of one initiator in each `window`."""
    tokens: Amount | None = None
    """Tokens, input and output, of one initiator in each `window`."""
    rules: Annotated[tuple[LimitRule, ...], Field(max_length=MAX_RULES)] = ()
    on_error: Literal["allow", "refuse"] = "allow"
    """The behaviour while Redis is unavailable: `allow` counts in each process alone, `refuse` answers 503."""
    window: Annotated[PositiveSeconds, Field(ge=0.1, le=LONGEST_WINDOW)] = 60.0
    max_stream_duration: PositiveSeconds | None = None

    @property
    def share(self) -> int:
        """The most requests of one principal, waiting ones included."""
        return -(-self.max_concurrent // 2)

    @property
    def per_principal(self) -> int:
        return self.max_concurrent_per_principal or self.share


class MemorySettings(_Section):
    """The data that one process holds at the same time, in bytes."""

    bodies: Size | None = None
    """Bodies of requests, and of responses that wait for their clients, decompressed; None for a quarter of the memory
    that the process may use.
    """


class MetricsSettings(_Section):
    multiprocess: bool = False
    """Whether a scrape covers all worker processes of the server."""


class RecorderSettings(_Section):
    """The storage of interceptions. `retention` is in seconds (or `60d`-like); 0 keeps them for ever."""

    url: DatabaseURL = masked_secret("sqlite+aiosqlite:///aibridge.db")
    enabled: bool = True
    capture_content: bool = True
    retention: NonNegativeSeconds = 60 * 86400.0
    max_text: Size = 2**20
    """Bytes of text stored for each member of an interception; longer text is cut and marked."""
