"""Providers, one file each: who is called, with which credentials, routes, headers and error shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..settings import ProviderSettings
from ..upstream.keys import Credential
from .anthropic import AnthropicProvider
from .openai import OpenAIProvider
from .provider import Provider

__all__ = ["AnthropicProvider", "Credential", "OpenAIProvider", "Provider", "build_providers"]

_TYPES: dict[str, type[Provider]] = {one.type: one for one in (OpenAIProvider, AnthropicProvider)}


def build_providers(
    settings: Mapping[str, ProviderSettings], previous: Iterable[Provider] = ()
) -> tuple[Provider, ...]:
    """Providers for these settings. One whose settings are the same as before is kept, and with it its state."""
    known = {provider.name: provider for provider in previous}
    built = []
    for name, one in settings.items():
        old = known.get(name)
        built.append(old if old is not None and old.settings == one else _TYPES[one.type](name, one))
    return tuple(built)
