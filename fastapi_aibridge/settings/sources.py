"""From where settings are read: variables, the secrets directory, the TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
)

from ..errors import SettingsError

PREFIX = "AIBRIDGE_"


def variable(name: str) -> str | None:
    """The value of the variable of this name, without the prefix, that has one."""
    wanted = PREFIX + name
    return next((value for key, value in os.environ.items() if key.upper() == wanted and value), None)


def read_config_file(path: Path) -> dict[str, Any]:
    """The TOML file's values. Raises `SettingsError`, whose text has no value of the file."""
    import tomllib  # with regular expressions that take milliseconds to compile

    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except (OSError, ValueError) as error:
        message = f"{PREFIX}CONFIG_FILE: {path} cannot be read as TOML: {error}"
        raise SettingsError(message + _key_in_line(text, str(error))) from None


def _key_in_line(text: str, error: str) -> str:
    """The key in whose line the error is, for the error's text."""
    line = re.search(r"at line (\d+)", error)
    key = re.match(r"\s*([\w.\"'-]+)\s*=", text.splitlines()[int(line[1]) - 1]) if line else None
    return f", in the value of {key[1]}" if key else ""


class ConfigFile(InitSettingsSource):
    """The TOML file that `CONFIG_FILE` names, read anew each time."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls, init_kwargs={} if path is None else read_config_file(path))


class Variables(EnvSettingsSource):
    """What should be a JSON list or map and is not stays as it is: its validation then says which variable it came
    from, and a key that is a number stays text.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
        return decoded if isinstance(decoded, dict | list) else value


class SecretFiles(Variables, NestedSecretsSettingsSource):
    """The secrets directory; only files that are called as our variables are read."""

    @staticmethod
    def _iter_secret_files(path: Path) -> Iterator[Path]:
        """Ours only: what other programs keep there may be of any kind and size."""
        files = NestedSecretsSettingsSource._iter_secret_files(path)  # noqa: SLF001 - there is no other hook
        return (file for file in files if file.name.upper().startswith(PREFIX))


def sources(
    settings_cls: type[BaseSettings], given: PydanticBaseSettingsSource, files: PydanticBaseSettingsSource
) -> tuple[PydanticBaseSettingsSource, ...]:
    """All sources, the strongest first. `given` are the keyword arguments."""
    arguments = given()
    directory = arguments.get("secrets_dir") or variable("SECRETS_DIR")
    found: list[PydanticBaseSettingsSource] = [given, Variables(settings_cls)]
    if directory:
        found.append(
            SecretFiles(files, secrets_dir=str(directory), secrets_dir_missing="error", secrets_nested_delimiter="__")
        )
    return (*found, ConfigFile(settings_cls, config_file(arguments)))


def config_file(arguments: Mapping[str, Any]) -> Path | None:
    """The TOML file that these keyword arguments, or the environment, name."""
    path = arguments.get("config_file") or variable("CONFIG_FILE")
    return Path(path) if path else None


class SourcedSettings(BaseSettings):
    """Settings that are read from these sources."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return sources(settings_cls, init_settings, file_secret_settings)
