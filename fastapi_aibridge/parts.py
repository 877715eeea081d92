"""The arguments of `AIBridge` in one object, and the outcome of a reload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .cluster.worker import WorkersOutcome
from .errors import ConfigurationError, SettingsError
from .recorder.jsonform import DOCUMENTED
from .settings import Settings

if TYPE_CHECKING:
    from .cluster.managed_settings import ManagedSettings
    from .loading import GivenSettings
    from .mcp.builder import MCPProxyBuilder
    from .money.budget_warnings import OnBudget
    from .providers.source import ProviderSource
    from .recorder import Recorder
    from .recorder.database import Database
    from .recorder.fanout import RecorderFactory


@dataclass(slots=True)
class Parts:
    """The arguments that an app gave to `AIBridge`. `Host.replaced` changes them in tests."""

    settings: GivenSettings
    recorder: Recorder | RecorderFactory | Sequence[Recorder | RecorderFactory] | None
    mcp: MCPProxyBuilder | None
    source: ProviderSource | None
    private_headers: frozenset[bytes]
    """Headers that the app's own principal dependency reads, in lower case."""
    takes_client_keys: bool
    """Whether callers authenticate with client keys rather than by an app's own dependency."""
    on_budget: OnBudget | None = None


@dataclass(frozen=True, slots=True)
class ReloadedProvider:
    __pydantic_config__ = DOCUMENTED

    name: str
    type: str
    status: str
    """`enabled`, `disabled`, or `error` if it cannot be used."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The outcome of a reload."""

    __pydantic_config__ = DOCUMENTED

    provider_version: int
    """The number of times the providers have been replaced since the start."""
    providers: list[ReloadedProvider]
    retired_bridges: int
    """Bridges that take no new requests from now on."""
    workers: WorkersOutcome = field(default_factory=WorkersOutcome)


def managed_settings_of(recorder: Recorder, settings: Settings) -> ManagedSettings:
    """Return the settings stored in the recorder's database. Raises `SettingsError` if it has no database."""
    from .cluster.cipher import Cipher  # loads SQLAlchemy and cryptography, which other apps do without
    from .cluster.managed_settings import ManagedSettings

    database: Database | None = getattr(recorder, "database", None)
    if database is None:
        raise SettingsError("AIBRIDGE_MANAGED needs the recorder's database, and records go elsewhere or nowhere")
    return ManagedSettings(database, Cipher(settings.secret_keys) if settings.secret_keys else None)


def not_running() -> ConfigurationError:
    return ConfigurationError(
        "aibridge is not running: its lifespan has not been entered. It comes with "
        "app.include_router(aibridge.router) on the app that the server runs; a sub-app that is mounted has "
        "no lifespan of its own, so give the outer app lifespan=aibridge.lifespan. In tests use "
        "'with TestClient(app)'."
    )
