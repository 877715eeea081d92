"""Puts a scripted provider in the place of the real ones: for an app's own handlers, or for its whole gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import HttpUrl, SecretStr

from ..bridge import RequestBridge
from ..errors import ConfigurationError
from ..plugin import AIBridge, get_bridge
from ..principal import Principal
from ..recorder.memory import MemoryRecorder
from ..settings import CircuitBreakerSettings, ProviderSettings, Settings
from .provider import ScriptedProvider

TESTER = Principal("tester")
BOTH = {"openai": "openai", "anthropic": "anthropic"}


@contextmanager
def override_bridge(
    app: FastAPI,
    provider: ScriptedProvider,
    *,
    principal: Principal = TESTER,
    recorder: MemoryRecorder | None = None,
    names: Mapping[str, str] = BOTH,
) -> Iterator[MemoryRecorder]:
    """Give the app's handlers a bridge to `provider` for `Depends(get_bridge)`. Yields its recorder.

    This lasts while the block runs. Callers do not authenticate, the app's own settings are not read, and its lifespan
    need not run; its gateway routes are not affected. `names` maps the names of the providers to their types.
    """
    recorder = MemoryRecorder() if recorder is None else recorder
    with provider.serve_in_thread() as base_url:
        aibridge = _scripted(base_url, recorder, names)

        async def get_scripted_bridge() -> AsyncIterator[RequestBridge]:
            async with aibridge.bridge(principal) as bridge:
                yield bridge

        before = dict(app.dependency_overrides)
        app.dependency_overrides[get_bridge] = get_scripted_bridge
        try:
            yield recorder
        finally:
            app.dependency_overrides = before


@contextmanager
def override_providers(
    aibridge: AIBridge,
    provider: ScriptedProvider,
    *,
    recorder: MemoryRecorder | None = None,
    names: Mapping[str, str] | None = None,
) -> Iterator[MemoryRecorder]:
    """Put `provider` in the place of every provider of `aibridge`, while the block runs. Yields its recorder.

    Everything else stays as it is: routes, keys, principals, tools, limits. `names` maps the names of the providers to
    their types; by default those of the app's settings, or `openai` and `anthropic` if they have none. Nothing is
    retried. The app must start within the block: raises `ConfigurationError` if it runs already.
    """
    if aibridge.running:
        raise ConfigurationError(
            "the app runs already; override its providers before it starts: "
            "'with override_providers(aibridge, provider), TestClient(app)'"
        )
    recorder = MemoryRecorder() if recorder is None else recorder
    with provider.serve_in_thread() as base_url:

        def redirected(settings: Settings) -> Settings:
            found = {name: one.type for name, one in settings.providers.items()}
            return settings.model_copy(update={"providers": _providers(base_url, names or found or BOTH)})

        with aibridge._host.replaced(redirected, recorder):  # noqa: SLF001 - of the same package
            yield recorder


@asynccontextmanager
async def scripted_bridge(
    provider: ScriptedProvider,
    principal: Principal = TESTER,
    *,
    recorder: MemoryRecorder | None = None,
    names: Mapping[str, str] = BOTH,
) -> AsyncIterator[RequestBridge]:
    """Provide a bridge to `provider`, for code that takes one."""
    async with provider.serve() as base_url:
        aibridge = _scripted(base_url, MemoryRecorder() if recorder is None else recorder, names)
        async with aibridge.bridge(principal) as bridge:
            yield bridge


class _OnlyGiven(Settings):
    """Settings that do not depend on where the tests run."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *others: Any, **more: Any) -> Any:  # noqa: ARG003
        return (init_settings,)


def _scripted(base_url: str, recorder: MemoryRecorder, names: Mapping[str, str]) -> AIBridge:
    return AIBridge(_OnlyGiven(providers=_providers(base_url, names), shutdown_grace=0), recorder=recorder)


def _providers(base_url: str, names: Mapping[str, str]) -> dict[str, ProviderSettings]:
    return {
        name: ProviderSettings(
            type=type_,
            base_url=HttpUrl(f"{base_url}/v1" if type_ == "openai" else base_url),
            api_key=SecretStr("sk-scripted"),
            max_retries=0,
            circuit_breaker=CircuitBreakerSettings(enabled=False),
        )
        for name, type_ in names.items()
    }
