"""Builds the providers that the settings describe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..settings import ProviderSettings
from .anthropic import AnthropicProvider
from .openai import OpenAIProvider
from .provider import Provider

_TYPES: dict[str, type[Provider]] = {one.type: one for one in (OpenAIProvider, AnthropicProvider)}


def build_providers(
    settings: Mapping[str, ProviderSettings], previous: Iterable[Provider] = ()
) -> tuple[Provider, ...]:
    """Return the providers for these settings. One whose settings have not changed is kept, and with it its state."""
    known = {provider.name: provider for provider in previous}
    built = []
    for name, one in settings.items():
        old = known.get(name)
        built.append(old if old is not None and old.settings == one else _TYPES[one.type](name, one))
    return tuple(built)
