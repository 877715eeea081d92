"""What can be set, from where it is read, and what is said when it does not validate."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from .credentials import digest_of
from .errors import SettingsError

logger = logging.getLogger(__name__)

PREFIX = "AIBRIDGE_"
DEFAULT_BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Provider type: its public API. The keys are the types that there are."""
DEFAULT_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Provider type: the variable that its vendor's SDK reads the key from."""
RESERVED_NAMES = {"admin", "healthz", "readyz"}
"""Provider names that would hide routes of ours."""
_SECTIONS = ("providers", "mcp_servers", "pool", "limits", "recorder", "client_keys")

_FRAMING = {"connection", "content-length", "transfer-encoding"}
"""Headers that the HTTP client writes; a second one would make the request ambiguous."""


def _duration(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)):
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    return value


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
"""Seconds, or a number with a unit: `90s`, `15m`, `12h`, `60d`."""
Seconds = Annotated[Duration, Field(gt=0)]


def _key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise ValueError("a key has no spaces, line breaks or characters beyond ASCII")
    return SecretStr(key)


Key = Annotated[SecretStr, AfterValidator(_key)]
"""A secret that travels in a header. The line break that many a file ends with is not part of it."""


def _header_safe(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in _FRAMING:
            raise ValueError(f"the header {name!r} is not for settings: the HTTP client writes it")
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise ValueError(f"the value of header {name!r} has characters that no header may have")
    return headers


Headers = Annotated[dict[str, str], AfterValidator(_header_safe), Field(repr=False)]
"""Header names and values. Values may be secrets and are not shown."""


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
    api_key: Key | None = None
    api_keys: tuple[Key, ...] = ()
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
        return tuple(key for key in (self.api_key, *self.api_keys) if key)


class MCPServerSettings(_Section):
    """One MCP server. `{session_key}` in a header value is the principal's."""

    url: HttpUrl = Field(repr=False)
    """Not shown: some servers are given their key in it."""
    headers: Headers = Field(default_factory=dict)
    tool_allow: re.Pattern[str] | None = None
    tool_deny: re.Pattern[str] | None = None


class PoolSettings(_Section):
    """How many bridges are kept, and for how long (seconds, or with a unit like `15m`)."""

    max_items: int = Field(default=5000, ge=1)
    ttl: Seconds = 900.0
    drain_timeout: Seconds = 600.0


class LimitSettings(_Section):
    """What one process takes on. Times are in seconds; what is None is not limited, `max_concurrent_per_principal`
    aside, which is half of `max_concurrent` then.
    """

    max_concurrent: int = Field(default=4096, ge=1)
    max_concurrent_per_principal: int | None = Field(default=None, ge=1)
    max_wait: Duration = 3.0
    """How long a request over its principal's limit waits for its turn."""
    requests: int | None = Field(default=None, ge=1)
    """Requests of one principal in each `window`."""
    window: Seconds = 60.0
    max_stream_duration: Seconds | None = None

    @property
    def share(self) -> int:
        """What one principal may have at most, requests that wait included."""
        return -(-self.max_concurrent // 2)

    @property
    def per_principal(self) -> int:
        return self.max_concurrent_per_principal or self.share


def _database(url: SecretStr) -> SecretStr:
    if not re.match(r"(sqlite|postgresql)(\+\w+)?://", url.get_secret_value()):
        raise ValueError("records go to SQLite or PostgreSQL: a URL that begins with sqlite:// or postgresql://")
    return url


class RecorderSettings(_Section):
    """Where interceptions are written down. `retention` is in seconds (or `60d`-like), 0 keeps them for ever."""

    url: Annotated[SecretStr, AfterValidator(_database)] = SecretStr("sqlite+aiosqlite:///aibridge.db")
    """Secret because it may hold the database's password."""
    enabled: bool = True
    capture_content: bool = True
    retention: Duration = 60 * 86400.0


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


class _Undecoded(EnvSettingsSource):
    """What should be JSON and is not stays as it is: its validation then says which variable it came from."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class _Secrets(_Undecoded, NestedSecretsSettingsSource):
    @staticmethod
    def _iter_secret_files(path: Path) -> Iterator[Path]:
        """Ours only: what other programs keep there may be of any kind and size."""
        files = NestedSecretsSettingsSource._iter_secret_files(path)  # noqa: SLF001 - there is no other hook
        return (file for file in files if file.name.upper().startswith(PREFIX))


class Settings(BaseSettings):
    """All settings, from keyword arguments, `AIBRIDGE_*` variables, the secrets directory and the TOML file, the
    first of them that has a value; providers and other sections may be put together from several of them. A new
    instance reads all of them again.

    Variables: names in any case, `__` between levels, lists and maps as JSON; an empty one counts as not set. The
    secrets directory, which `AIBRIDGE_SECRETS_DIR` names, has one file for each value, called as its variable:
    `aibridge_providers__openai__api_key`. The prefix belongs to it, so that several programs may share a directory;
    white space around the value does not. The TOML file, which `AIBRIDGE_CONFIG_FILE` names, has the fields below.
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
    )

    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    mcp_servers: dict[str, MCPServerSettings] = Field(default_factory=dict)
    pool: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    shutdown_grace: Duration = 5.0
    gc_freeze: bool = True
    recorder: RecorderSettings = RecorderSettings()
    client_keys: dict[str, Key] = Field(default_factory=dict)
    admin_token: Key | None = None
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
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings()
        file = given.get("config_file") or _variable("CONFIG_FILE")
        directory = given.get("secrets_dir") or _variable("SECRETS_DIR")
        sources: list[PydanticBaseSettingsSource] = [init_settings, _Undecoded(settings_cls)]
        if directory:
            sources.append(
                _Secrets(
                    file_secret_settings,
                    secrets_dir=str(directory),
                    secrets_dir_missing="error",
                    secrets_nested_delimiter="__",
                )
            )
        return (*sources, _ConfigFile(settings_cls, str(file) if file else None))

    @field_validator("admin_token", "redis_url", mode="after")
    @classmethod
    def _empty_is_unset(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret or None

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
                missing = "is not set, and the provider's name is not a type" if not provider.type else "is not one"
                raise ValueError(
                    f"{PREFIX}PROVIDERS__{name.upper()}__TYPE {missing}; the types are "
                    f"{', '.join(sorted(DEFAULT_BASE_URLS))}"
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
        owners: dict[bytes, str] = {}
        for initiator, key in self.client_keys.items():
            secret = key.get_secret_value()
            if not secret:
                raise ValueError(f"{PREFIX}CLIENT_KEYS__{initiator.upper()} is empty")
            if secret.startswith("sha256:") and not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", secret):
                raise ValueError(f"{PREFIX}CLIENT_KEYS__{initiator.upper()}: sha256: wants 64 hexadecimal digits")
            digest = digest_of(secret)
            if digest in owners:
                raise ValueError(f"{initiator!r} and {owners[digest]!r} have the same client key; give each its own")
            owners[digest] = initiator
        return self

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Read all sources. Raises `SettingsError`, whose text names each variable that is wrong and never a value."""
        fields = set(cls.model_fields)
        _warn_of_unknown(os.environ, fields)
        try:
            settings = cls(**values)
            if settings.secrets_dir is not None:
                _warn_of_unnamed(settings.secrets_dir.expanduser(), fields)
        except ValidationError as error:
            raise SettingsError(explain(error)) from None
        except (SourceError, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{PREFIX}SECRETS_DIR: {error}") from None
        return settings


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
        if name in fields:
            continue
        if section := next((field for field in _SECTIONS if name.startswith(f"{field}_")), None):
            logger.warning("%s is not a setting; levels are parted by two underscores: %s%s__...",
                           variable, PREFIX, section.upper())  # fmt: skip
        elif near := difflib.get_close_matches(name, fields, n=1, cutoff=0.75):
            logger.warning("%s is not a setting; did you mean %s%s?", variable, PREFIX, near[0].upper())


def _warn_of_unnamed(directory: Path, fields: set[str]) -> None:
    """Of secrets whose file lacks the prefix."""
    for file in sorted(directory.iterdir()):
        if file.name.lower().partition("__")[0] in fields:
            logger.warning("the secret %s is not read; if it is a setting, call it as its variable: %s%s",
                           file, PREFIX, file.name.upper())  # fmt: skip


def explain(error: ValidationError) -> str:
    """What is wrong with which variable, without the values: they may be secrets."""
    lines = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        variable = PREFIX + "__".join(str(part).upper() for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting; look for a typing error"
        elif problem["type"] in ("dict_type", "list_type", "tuple_type", "model_type"):
            message += ", in a variable written as JSON"
        lines.append(message if message.startswith(PREFIX) else f"{variable.removesuffix('_')}: {message}")
    return "; ".join(lines)
