"""The URLs of the app's database and Redis, read without its other settings: a shell may lack the app's keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from ..errors import SettingsError
from .model import Settings, explain
from .sections import RecorderSettings
from .sources import PREFIX, SourcedSettings, variable
from .values import RedisPrefix, RedisURL


@dataclass(frozen=True, slots=True)
class ConfiguredDatabase:
    """The database's URL, and the source of that URL."""

    url: SecretStr
    source: str


class _StoresOnly(SourcedSettings):
    model_config = SettingsConfigDict(**{**Settings.model_config, "extra": "ignore"})

    recorder: RecorderSettings = RecorderSettings()
    redis_url: RedisURL | None = None
    redis_prefix: RedisPrefix = "aibridge:"
    config_file: Path | None = None
    secrets_dir: Path | None = None


def configured_database() -> ConfiguredDatabase:
    """Read the database's URL from the sources of the app's settings. Raises `SettingsError`."""
    read = _read()
    return ConfiguredDatabase(read.recorder.url, _source(read))


def configured_redis() -> tuple[SecretStr, str] | None:
    """Read the URL of Redis and the prefix of all keys in the same way; None without a URL. Raises `SettingsError`."""
    read = _read()
    return (read.redis_url, read.redis_prefix) if read.redis_url else None


def _read() -> _StoresOnly:
    try:
        return _StoresOnly()
    except ValidationError as error:
        raise SettingsError(explain(error)) from None
    except (SourceError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{PREFIX}SECRETS_DIR: {error}") from None


def _source(read: _StoresOnly) -> str:
    if "url" not in read.recorder.model_fields_set:
        return f"the default; {PREFIX}RECORDER__URL is not set"
    if variable("RECORDER__URL") or variable("RECORDER"):
        return f"{PREFIX}RECORDER__URL"
    if read.secrets_dir is not None and any(
        file.name.upper().startswith(f"{PREFIX}RECORDER") for file in read.secrets_dir.expanduser().iterdir()
    ):
        return str(read.secrets_dir)
    return str(read.config_file)
