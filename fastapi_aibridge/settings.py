"""What can be set, from where it is read, and what is said when it does not validate."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from .errors import SettingsError

logger = logging.getLogger(__name__)

PREFIX = "AIBRIDGE_"
DEFAULT_BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Provider type: its public API. The keys are the types that there are."""
DEFAULT_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Provider type: the variable that its vendor's SDK reads the key from."""
RESERVED_NAMES = {"admin", "healthz", "readyz"}
"""Provider names that would hide routes of ours."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _header_safe(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is no header name")
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise ValueError(f"the value of header {name!r} has characters that no header may have")
    return headers


Headers = Annotated[dict[str, str], AfterValidator(_header_safe)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CircuitBreakerSettings(_Section):
    """When a provider's endpoint and model are given a rest. Times are in seconds."""

    enabled: bool = True
    failure_threshold: int = Field(default=5, ge=1)
    interval: Seconds = 10.0
    timeout: Seconds = 30.0
    max_requests: int = Field(default=3, ge=1)


class ProviderSettings(_Section):
    """One provider. `base_url` includes the version path as the vendor's SDK expects it; times are in seconds."""

    type: str = ""
    base_url: HttpUrl | None = None
    api_key: SecretStr | None = None
    api_keys: tuple[SecretStr, ...] = ()
    enabled: bool = True
    max_retries: int = Field(default=2, ge=0, le=10)
    connect_timeout: Seconds = 10.0
    read_timeout: Seconds = 600.0
    extra_headers: Headers = Field(default_factory=dict)
    send_actor_headers: bool = False
    byok: bool = False
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
        return ((self.api_key,) if self.api_key else ()) + self.api_keys


class MCPServerSettings(_Section):
    """One MCP server. `{session_key}` in a header value is the principal's."""

    url: HttpUrl
    headers: Headers = Field(default_factory=dict)
    tool_allow: re.Pattern[str] | None = None
    tool_deny: re.Pattern[str] | None = None


class PoolSettings(_Section):
    """How many bridges are kept, and for how long (seconds)."""

    max_items: int = Field(default=5000, ge=1)
    ttl: Seconds = 900.0
    drain_timeout: Seconds = 600.0


class RecorderSettings(_Section):
    """Where interceptions are written down. `retention` is in seconds (or `60d`-like), 0 keeps them for ever."""

    url: SecretStr = SecretStr("sqlite+aiosqlite:///aibridge.db")
    """Secret because it may hold the database's password."""
    enabled: bool = True
    capture_content: bool = True
    retention: float = Field(default=60 * 86400.0, ge=0)

    @field_validator("retention", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)):
            return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
        return value


class _ConfigFile(InitSettingsSource):
    """The TOML file that `CONFIG_FILE` names, read anew each time."""

    def __init__(self, settings_cls: type[BaseSettings], path: str | None) -> None:
        values: dict[str, Any] = {}
        if path:
            try:
                values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise SettingsError(f"{PREFIX}CONFIG_FILE: {path} cannot be read as TOML: {error}") from error
        super().__init__(settings_cls, init_kwargs=values)


class Settings(BaseSettings):
    """All settings, from keyword arguments, `AIBRIDGE_*` variables, the secrets directory and the TOML file, the
    first of them that has a value. A new instance reads all of them again.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        case_sensitive=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        nested_model_default_partial_update=True,
    )

    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mcp_servers: dict[str, MCPServerSettings] = Field(default_factory=dict)
    pool: PoolSettings = PoolSettings()
    shutdown_grace: float = Field(default=5.0, ge=0)
    recorder: RecorderSettings = RecorderSettings()
    client_keys: dict[str, SecretStr] = Field(default_factory=dict)
    admin_token: SecretStr | None = None
    max_body_size: int = Field(default=32 * 1024 * 1024, ge=1)
    redis_url: SecretStr | None = None
    private_headers: tuple[str, ...] = ()
    config_file: Path | None = None
    secrets_dir: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings()
        file = given.get("config_file") or _variable("CONFIG_FILE")
        directory = given.get("secrets_dir") or _variable("SECRETS_DIR")
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if directory:
            sources.append(
                NestedSecretsSettingsSource(
                    file_secret_settings,
                    secrets_dir=str(directory),
                    secrets_dir_missing="error",
                    secrets_nested_delimiter="__",
                )
            )
        return (*sources, _ConfigFile(settings_cls, str(file) if file else None))

    @field_validator("providers", mode="after")
    @classmethod
    def _named(cls, providers: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        named = {}
        for name, provider in providers.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
                raise ValueError(f"{name!r} is no provider name: use lower-case letters, digits, '_', '.' and '-'")
            if name in RESERVED_NAMES:
                raise ValueError(f"the name {name!r} is taken by a route of the gateway; choose another")
            type_ = provider.type or name
            if type_ not in DEFAULT_BASE_URLS:
                raise ValueError(
                    f"{PREFIX}PROVIDERS__{name.upper()}__TYPE: {type_!r} is no provider type; "
                    f"there are {', '.join(sorted(DEFAULT_BASE_URLS))}"
                )
            named[name] = provider.model_copy(update={"type": type_, **_defaults(provider, type_)})
            if provider.enabled and not named[name].keys and not provider.byok:
                raise ValueError(
                    f"{PREFIX}PROVIDERS__{name.upper()}__API_KEY: provider {name!r} has no key; "
                    f"set it, {PREFIX}PROVIDERS__{name.upper()}__API_KEYS or {DEFAULT_KEYS[type_]}, "
                    "or let callers bring their own with __BYOK=true"
                )
        return named

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        owners: dict[str, str] = {}
        for initiator, key in self.client_keys.items():
            secret = key.get_secret_value()
            if not secret:
                raise ValueError(f"{PREFIX}CLIENT_KEYS__{initiator.upper()} is empty")
            if secret.startswith("sha256:") and not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", secret):
                raise ValueError(f"{PREFIX}CLIENT_KEYS__{initiator.upper()}: sha256: wants 64 hexadecimal digits")
            if secret in owners:
                raise ValueError(f"{initiator!r} and {owners[secret]!r} have the same client key; give each its own")
            owners[secret] = initiator
        return self

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Read all sources. Raises `SettingsError`, whose text names each variable that is wrong and never a value."""
        _warn_of_unknown(os.environ, set(cls.model_fields))
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None
        except SourceError as error:
            raise SettingsError(_explain_source(error)) from None


def _defaults(provider: ProviderSettings, type_: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if provider.base_url is None:
        found["base_url"] = HttpUrl(DEFAULT_BASE_URLS[type_])
    if not provider.keys and (key := os.environ.get(DEFAULT_KEYS[type_])):
        found["api_key"] = SecretStr(key)
    return found


def _variable(name: str) -> str | None:
    wanted = PREFIX + name
    return next((value for key, value in os.environ.items() if key.upper() == wanted and value), None)


def _warn_of_unknown(environ: Mapping[str, str], fields: set[str]) -> None:
    """A warning, not an error: Kubernetes puts `AIBRIDGE_SERVICE_HOST` and its like there for a service of our name."""
    for variable in environ:
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable.upper().removeprefix(PREFIX).partition("__")[0].lower()
        if name not in fields and (near := difflib.get_close_matches(name, fields, n=1, cutoff=0.75)):
            logger.warning("%s is not a setting; did you mean %s%s?", variable, PREFIX, near[0].upper())


def explain(error: ValidationError) -> str:
    """What is wrong with which variable, without the values: they may be secrets."""
    lines = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        variable = PREFIX + "__".join(str(part).upper() for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting; look for a typing error"
        lines.append(message if message.startswith(PREFIX) else f"{variable.removesuffix('_')}: {message}")
    return "; ".join(lines)


def _explain_source(error: SourceError) -> str:
    field = re.search(r'field "([^"]+)"', str(error))
    name = PREFIX + field[1].upper() if field else PREFIX.removesuffix("_")
    return f"{name}: the value is not valid JSON, which lists and maps need ({error.__cause__ or error})"
