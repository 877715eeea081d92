"""The sources of settings: variables, the secrets directory, the TOML file."""

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
from .duplicate_members import duplicate_members

PREFIX = "AIBRIDGE_"


def variable(name: str) -> str | None:
    """Return the value of the variable with this name after the prefix, in any case; None if none has one."""
    wanted = PREFIX + name
    return next((value for key, value in os.environ.items() if key.upper() == wanted and value), None)


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the TOML file's values. Raises `SettingsError`, whose text quotes no value of the file."""
    import tomllib  # imported late: it compiles regular expressions for milliseconds

    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except (OSError, ValueError) as error:
        message = f"{PREFIX}CONFIG_FILE: {path} cannot be read as TOML: {error}"
        raise SettingsError(message + _key_in_line(text, str(error))) from None


def _key_in_line(text: str, error: str) -> str:
    """The key on the line of the error, as an addition to the error's text."""
    line = re.search(r"at line (\d+)", error)
    key = re.match(r"\s*([\w.\"'-]+)\s*=", text.splitlines()[int(line[1]) - 1]) if line else None
    return f", in the value of {key[1]}" if key else ""


class ConfigFile(InitSettingsSource):
    """The TOML file that `CONFIG_FILE` names, read again for each instance."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls, init_kwargs={} if path is None else read_config_file(path))


class Variables(EnvSettingsSource):
    """Environment variables. A value that should be a JSON list or map and is not stays text: its validation then names
    the variable, and a key that is a number stays text.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            decoded = super().decode_complex_value(field_name, field, value)
            twice = duplicate_members(value)
        except ValueError:
            return value
        if twice:
            where = next((name.upper() for name, text in self.env_vars.items() if text == value), field_name)
            raise SettingsError(f"{where}: the member {twice[0]!r:.66} occurs twice in an object")
        return decoded if isinstance(decoded, dict | list) else value


class SecretFiles(Variables, NestedSecretsSettingsSource):
    """The secrets directory. Only files named like our variables are read."""

    @staticmethod
    def _iter_secret_files(path: Path) -> Iterator[Path]:
        """Yield our files only: other programs may keep files of any kind and size there."""
        files = NestedSecretsSettingsSource._iter_secret_files(path)  # noqa: SLF001 - there is no other hook
        return (file for file in files if file.name.upper().startswith(PREFIX))


def sources(
    settings_cls: type[BaseSettings], given: PydanticBaseSettingsSource, files: PydanticBaseSettingsSource
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return all sources, in the order of precedence. `given` are the keyword arguments."""
    arguments = given()
    directory = arguments.get("secrets_dir") or variable("SECRETS_DIR")
    found: list[PydanticBaseSettingsSource] = [given, Variables(settings_cls)]
    if directory:
        found.append(
            SecretFiles(files, secrets_dir=str(directory), secrets_dir_missing="error", secrets_nested_delimiter="__")
        )
    return (*found, ConfigFile(settings_cls, config_file(arguments)))


def config_file(arguments: Mapping[str, Any]) -> Path | None:
    """Return the path of the TOML file from these keyword arguments or the environment; None if neither names one."""
    path = arguments.get("config_file") or variable("CONFIG_FILE")
    return Path(path) if path else None


class SourcedSettings(BaseSettings):
    """Settings that are read from the sources of this module."""

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
