"""Providers and MCP servers in the admin API's form: validated, split from their secrets, and shown without them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from ..errors import ConfigurationError, SettingsError
from ..masking import hint
from ..settings import MCPServerSettings, ProviderSettings, Settings, WrongMember, named_provider
from ..upstream.proxy import FROM_ENVIRONMENT

logger = logging.getLogger(__name__)

Body = Mapping[str, Any]
"""The members of the settings in lower case, with JSON values."""


class Kind(StrEnum):
    PROVIDER = "provider"
    MCP_SERVER = "mcp_server"


SECRETS: dict[Kind, tuple[str, ...]] = {
    Kind.PROVIDER: ("api_key", "api_keys", "extra_headers", "proxy"),
    Kind.MCP_SERVER: ("url", "headers"),
}
"""Members that are stored encrypted and never shown. An MCP server's URL may contain a key."""
_URLS = ("url", "proxy")
MODELS: dict[Kind, type[BaseModel]] = {Kind.PROVIDER: ProviderSettings, Kind.MCP_SERVER: MCPServerSettings}

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")
_NAMES = "a name has 1 to 128 lower-case letters, digits, '_', '.' and '-', and begins with a letter or a digit"


@dataclass(frozen=True, slots=True)
class InvalidMember:
    """The error of one member of a body. Its texts never quote the value."""

    place: tuple[str | int, ...]
    kind: str
    text: str


class InvalidSettings(SettingsError):
    """Raised for a body that is no valid provider or MCP server; `members` lists the errors."""

    def __init__(self, members: list[InvalidMember]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, one.place))}: {one.text}" for one in members))
        self.members = members


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedEntry:
    """A stored provider or MCP server. `problem` says why its secrets cannot be read; `body` lacks them then."""

    kind: Kind
    name: str
    body: Body
    version: int
    problem: str | None = None

    @property
    def etag(self) -> str:
        return f'"{self.version}"'


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """An entry that cannot be used, with the reason. The other entries are not affected."""

    kind: Kind
    name: str
    type: str
    error: str


def checked(kind: Kind, name: str, body: Body) -> ProviderSettings | MCPServerSettings:
    """Validate a body, and return its settings if they can be used here. Raises `InvalidSettings`."""
    if not NAME.fullmatch(name):
        raise InvalidSettings([InvalidMember(("name",), "value_error", _NAMES)])
    from ..providers.building import build_providers  # imported late: the engine is loaded at start

    try:
        if kind is Kind.MCP_SERVER:
            return MCPServerSettings.model_validate(body)
        provider = named_provider(name, ProviderSettings.model_validate(body))
        build_providers({name: provider})  # may read this machine's environment
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
        raise InvalidSettings(
            [InvalidMember(one["loc"], one["type"], one["msg"].removeprefix("Value error, ")) for one in found]
        ) from None
    except WrongMember as error:
        raise InvalidSettings([InvalidMember((error.member,), "value_error", str(error))]) from None
    except (ConfigurationError, ValueError) as error:
        raise InvalidSettings([InvalidMember((), "value_error", str(error))]) from None
    return provider


def usable(entry: ManagedEntry) -> ProviderSettings | MCPServerSettings:
    """Return the settings of an entry. Raises `SettingsError` with the reason if it cannot be used."""
    if entry.problem is not None:
        raise SettingsError(entry.problem)
    return checked(entry.kind, entry.name, entry.body)


def split(kind: Kind, body: Body) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a body into the members stored as they are and those stored encrypted."""
    secret = {name: value for name, value in body.items() if name in SECRETS[kind]}
    return {name: value for name, value in body.items() if name not in secret}, secret


def shown(kind: Kind, body: Body) -> dict[str, Any]:
    """The body with hints in place of secrets."""
    return {name: _hinted(name, value) if name in SECRETS[kind] else value for name, value in body.items()}


def audited(kind: Kind, body: Body) -> dict[str, Any]:
    """The body with its secrets as `SecretStr`, which the audit replaces by hints."""
    return {name: _secret(name, value) if name in SECRETS[kind] else value for name, value in body.items()}


def _secret(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: SecretStr(str(one)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [SecretStr(str(one)) for one in value]
    return _hinted(name, value) if name in _URLS else SecretStr(str(value))


def _hinted(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: hint(str(one)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hint(str(one)) for one in value]
    if not isinstance(value, str):
        return None
    if name in _URLS:
        return value if value == FROM_ENVIRONMENT else _place(value)
    return hint(value)


def _place(url: str) -> str:
    """The scheme, host and port of a URL, without the parts that may be secret."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "..."
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}/..."


def with_managed(settings: Settings, entries: Iterable[ManagedEntry]) -> tuple[Settings, list[BrokenEntry]]:
    """Return the settings with the database's usable entries, and its broken ones. The settings' own come first."""
    own: dict[Kind, dict[str, Any]] = {Kind.PROVIDER: settings.providers, Kind.MCP_SERVER: settings.mcp_servers}
    added: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
    broken = []
    for entry in entries:
        if entry.name in own[entry.kind]:
            continue
        try:
            added[entry.kind][entry.name] = usable(entry)
        except SettingsError as error:
            logger.error("%s %r in the database cannot be used: %s", entry.kind, entry.name, error)  # noqa: TRY400
            broken.append(BrokenEntry(entry.kind, entry.name, str(entry.body.get("type") or entry.name), str(error)))
    changes = {
        "providers": {**settings.providers, **added[Kind.PROVIDER]},
        "mcp_servers": {**settings.mcp_servers, **added[Kind.MCP_SERVER]},
    }
    return settings.model_copy(update=changes), broken
