"""Reads the settings and loads the providers, at start and at a reload."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from .errors import SettingsError
from .settings import DEFAULT_BASE_URLS, Settings, explain, warn_of_base_urls

if TYPE_CHECKING:
    from .providers.provider import Provider
    from .providers.source import ProviderSource

logger = logging.getLogger(__name__)

LOAD_TIMEOUT = 30.0
"""Seconds that an app's settings function or provider source may take."""

T = TypeVar("T")
GivenSettings = Settings | Callable[[], Settings] | None
"""The argument `settings` of `AIBridge`."""


async def read_settings_anew(given: GivenSettings) -> Settings:
    """Read the settings in a thread, so that running requests are not held up. Raises `SettingsError`."""
    return await _in_time(asyncio.to_thread(read_settings, given), "the settings")


def read_settings(given: GivenSettings) -> Settings:
    """Return the given settings, call the given function, or read the environment. Raises `SettingsError`."""
    if isinstance(given, Settings):
        return given
    try:
        return Settings.load() if given is None else given()
    except ValidationError as error:
        raise SettingsError(explain(error)) from None


async def load_providers(
    source: ProviderSource | None, settings: Settings, previous: Sequence[Provider]
) -> Sequence[Provider]:
    """Load the providers from the app's source, or build them from the settings if there is no source.

    Each provider takes over the state of the previous one of the same name. Raises `SettingsError`, and what the
    source raises.
    """
    from .providers.building import build_providers  # loads the engine

    if source is None:
        return build_providers(settings.providers, previous)
    providers = await _in_time(source.load(), "the provider source")
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names):
        raise SettingsError(f"the provider source gave two providers of the same name: {sorted(names)}")
    before = {provider.name: provider for provider in previous}
    for provider in providers:
        if (old := before.get(provider.name)) is not None and old is not provider:
            provider.take_over(old)
    return providers


async def _in_time(work: Awaitable[T], what: str) -> T:
    """Await the work. Raises `SettingsError` after `LOAD_TIMEOUT`; work that ignores its cancellation is abandoned."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=LOAD_TIMEOUT)
        if task.done():
            if task.cancelled():
                raise SettingsError(f"{what} gave up: it was cancelled from within")
            return task.result()
        raise SettingsError(f"{what} did not answer within {LOAD_TIMEOUT:g} s")
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


def warn_of_what_is_missing(settings: Settings, providers: Sequence[Provider]) -> None:
    warn_of_base_urls(settings.providers)
    if not any(provider.enabled for provider in providers):
        logger.warning(
            "no provider is configured, so every request will get 404: set AIBRIDGE_PROVIDERS__OPENAI__API_KEY or "
            "AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY (OPENAI_API_KEY alone configures no provider)"
        )
    known = {name for provider in providers for name in (provider.name, provider.type)} | set(DEFAULT_BASE_URLS)
    for name in settings.prices:
        if name not in known:
            logger.warning("AIBRIDGE_PRICES has prices of %r, which is neither a provider nor a type of them", name)
