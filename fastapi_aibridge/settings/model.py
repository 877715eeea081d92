"""The model of all settings, and the rules that concern several of them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from ..credentials import digest_of
from ..errors import SettingsError
from ..masking import masked_secret
from . import diagnostics
from .budgets import Budgets
from .prices import ModelPrices
from .sections import (
    DEFAULT_BASE_URLS,
    LimitSettings,
    MCPServerSettings,
    MemorySettings,
    MetricsSettings,
    PoolSettings,
    ProviderSettings,
    RecorderSettings,
)
from .sources import PREFIX, SourcedSettings, config_file
from .values import Count, FernetKey, HeaderName, Key, Keys, NonNegativeSeconds, RedisPrefix, RedisURL, Size

DEFAULT_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Provider type: the variable from which its vendor's SDK reads the key."""
RESERVED_NAMES = {"admin", "healthz", "me", "readyz"}
"""Provider names that would hide routes of the gateway."""
NEVER_FORWARDED = {"authorization", "cookie", "host", "proxy-authorization", "x-api-key", "x-aibridge-token"}
"""Request headers that are never sent to a provider, whatever the settings say."""
_SECTIONS = ("providers", "mcp_servers", "pool", "limits", "memory", "metrics", "recorder", "client_keys", "prices")


class Settings(SourcedSettings):
    """All settings, from keyword arguments, `AIBRIDGE_*` variables, the secrets directory and the TOML file. The first
    source that has a value wins; providers and other sections may combine several sources. A new instance reads all of
    them again.

    Variables: names in any case, `__` between levels, lists and maps as JSON; an empty one counts as not set. The
    secrets directory, named by `AIBRIDGE_SECRETS_DIR`, has one file for each value, named like its variable:
    `aibridge_providers__openai__api_key`. The prefix is required, so that several programs may share a directory; white
    space around the value is dropped. The TOML file, named by `AIBRIDGE_CONFIG_FILE`, has the fields below.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        case_sensitive=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
        defer_build=True,
    )

    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mcp_servers: dict[str, MCPServerSettings] = Field(default_factory=dict)
    pool: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    memory: MemorySettings = MemorySettings()
    metrics: MetricsSettings = MetricsSettings()
    shutdown_grace: NonNegativeSeconds = 5.0
    gc_freeze: bool = True
    recorder: RecorderSettings = RecorderSettings()
    client_keys: dict[str, Keys] = Field(default_factory=dict)
    """The keys of each initiator, plain or as `sha256:<hex>`, all of which are valid."""
    managed: bool = False
    """Whether client keys, providers and MCP servers also come from the recorder's database."""
    admin_token: Key | None = None
    metrics_token: Key | None = None
    """The token for metrics and health only."""
    audit_token: Key | None = None
    """The token for reading only."""
    max_body_size: Size = 32 * 2**20
    redis_url: RedisURL | None = None
    redis_prefix: RedisPrefix = "aibridge:"
    """The prefix of all keys and channels; deployments that share a Redis need different ones."""
    secret_keys: tuple[FernetKey, ...] = ()
    """Keys for secrets that are stored where others may read them: the first encrypts, all decrypt."""
    private_headers: tuple[HeaderName, ...] = ()
    forward_headers: tuple[HeaderName, ...] = ()
    """Further request headers that go to providers; `*` for all but the forbidden ones."""
    foreign_ids: Literal["allow", "refuse"] = "allow"
    """The treatment of ids of provider objects that were not created through this gateway."""
    log_format: Literal["text", "json"] = "text"
    prices: dict[str, dict[str, ModelPrices]] = Field(default_factory=dict)
    """Prices by a provider's name or type, then by model or pattern of models. They override those of genai-prices."""
    unpriced: Literal["allow", "refuse"] = "allow"
    """The treatment of a model without a price where a budget applies."""
    budgets: Budgets = ()
    budget_on_error: Literal["refuse", "allow"] = "refuse"
    """The treatment of requests while budgets cannot be read."""
    budget_default_output: Count = Field(default=4096, ge=1, le=1_000_000_000)
    """Output tokens that are reserved if the request sets no bound."""
    config_file: Path | None = None
    secrets_dir: Path | None = None

    @field_validator("admin_token", "metrics_token", "audit_token", "redis_url", mode="after")
    @classmethod
    def _empty_is_unset(cls, secret: SecretStr | None) -> SecretStr | None:
        return masked_secret(secret) if secret else None

    @field_validator("forward_headers", mode="after")
    @classmethod
    def _forwardable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.lower() in NEVER_FORWARDED:
                raise ValueError(f"the header {name!r} is never sent to a provider")
        return tuple(name.lower() for name in names)

    @field_validator("providers", mode="after")
    @classmethod
    def _named(cls, providers: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        return {name: named_provider(name, provider) for name, provider in providers.items()}

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        owners: dict[bytes, str] = {}
        for initiator, keys in self.client_keys.items():
            variable = f"{PREFIX}CLIENT_KEYS__{initiator.upper()}"
            if not all(keys) or not keys:
                raise ValueError(f"{variable} is empty")
            for key in keys:
                secret = key.get_secret_value()
                if secret.startswith("sha256:") and not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", secret):
                    raise ValueError(f"{variable}: sha256: wants 64 hexadecimal digits")
                owner = owners.setdefault(digest_of(secret), initiator)
                if owner != initiator:
                    raise ValueError(f"{initiator!r} and {owner!r} have the same client key; give each its own")
        return self

    @model_validator(mode="after")
    def _distinct_tokens(self) -> Self:
        """Check that no token equals another or a client key, so that none grants the rights of another."""
        taken = {digest_of(key.get_secret_value()): f"the client key of {initiator!r}"
                 for initiator, keys in self.client_keys.items() for key in keys}  # fmt: skip
        for name in ("admin_token", "metrics_token", "audit_token"):
            token: SecretStr | None = getattr(self, name)
            if token is None:
                continue
            variable = PREFIX + name.upper()
            digest = hashlib.sha256(token.get_secret_value().encode()).digest()
            if digest in taken:
                raise ValueError(f"{variable} is the same as {taken[digest]}; give each its own")
            taken[digest] = variable
        return self

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Read all sources. Raises `SettingsError`, whose text names each invalid variable and never a value."""
        fields = set(cls.model_fields)
        diagnostics.warn_of_unknown(os.environ, fields, _SECTIONS)
        try:
            settings = cls(**values)
            if settings.secrets_dir is not None:
                diagnostics.warn_of_unnamed(settings.secrets_dir.expanduser(), fields)
        except ValidationError as error:
            raise SettingsError(explain(error, **values)) from None
        except (SourceError, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{PREFIX}SECRETS_DIR: {error}") from None
        return settings


class WrongMember(ValueError):
    """A provider that is invalid as a whole. `member` is the one to change: a member of its settings, or `name`."""

    def __init__(self, member: str, message: str) -> None:
        super().__init__(message)
        self.member = member


def explain(error: ValidationError, **values: Any) -> str:
    """Return the errors by variable, without the values, which may be secrets. `values` are the keyword arguments."""
    return diagnostics.explain(error, Settings, config_file(values))


def named_provider(name: str, provider: ProviderSettings) -> ProviderSettings:
    """Return the provider with the defaults that its name and type imply. Raises `WrongMember`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise WrongMember("name", f"{name!r} is no provider name: use lower-case letters, digits, '_', '.' and '-'")
    if name in RESERVED_NAMES:
        raise WrongMember("name", f"the name {name!r} is taken by a route of the gateway; choose another")
    type_ = provider.type or name
    if type_ not in DEFAULT_BASE_URLS:
        missing = "is not set, and the provider's name is not a type" if not provider.type else "is not one"
        raise WrongMember(
            "type",
            f"{PREFIX}PROVIDERS__{name.upper()}__TYPE {missing}; the types are {', '.join(sorted(DEFAULT_BASE_URLS))}",
        )
    named = provider.model_copy(update={"type": type_, **_defaults(provider, type_)})
    if provider.enabled and not named.keys and not provider.byok:
        raise WrongMember(
            "api_key",
            f"{PREFIX}PROVIDERS__{name.upper()}__API_KEY: provider {name!r} has no key; "
            f"set it, {PREFIX}PROVIDERS__{name.upper()}__API_KEYS or {DEFAULT_KEYS[type_]}, "
            "or let callers bring their own with __BYOK=true",
        )
    return named


def _defaults(provider: ProviderSettings, type_: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if provider.base_url is None:
        found["base_url"] = HttpUrl(DEFAULT_BASE_URLS[type_])
    if not provider.keys and (key := os.environ.get(DEFAULT_KEYS[type_])):
        found["api_key"] = masked_secret(key)
    return found
