"""Clients of one bridge: the vendors' own, and the bare one below them. All imports are at the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..installing import install_command

if TYPE_CHECKING:
    import anthropic
    import httpx2
    import openai
    from starlette.types import ASGIApp

    from ..providers.provider import Provider

HOST = "http://aibridge.invalid"
"""Never resolves (RFC 2606): what goes around our transport, WebSockets for instance, reaches nobody."""

_OPENAI = ("/v1/responses", "/v1/chat/completions")
_ANTHROPIC = ("/v1/messages",)


def http_client(app: ASGIApp, provider: Provider, api_key: str | None) -> httpx2.AsyncClient:
    """It waits as long as the gateway does: timeouts are the provider's settings. Raises `ConfigurationError`."""
    try:
        import httpx2

        from .transport import InProcessTransport
    except ModuleNotFoundError as error:
        raise ConfigurationError("a client in process needs httpx2: pip install httpx2") from error
    return httpx2.AsyncClient(
        transport=InProcessTransport(app, provider.name, api_key), base_url=HOST, timeout=None, trust_env=False
    )


def openai_client(app: ASGIApp, provider: Provider, api_key: str | None) -> openai.AsyncOpenAI:
    """Raises `ConfigurationError` where the SDK is missing or the provider speaks none of its formats."""
    _check(provider, _OPENAI, "OpenAI's")
    try:
        from openai import AsyncOpenAI

        from .transport import PLACEHOLDER
    except ModuleNotFoundError as error:
        raise _missing("openai", error) from error
    client = AsyncOpenAI(
        api_key=PLACEHOLDER,
        base_url=f"{HOST}/v1",
        timeout=None,
        max_retries=0,
        http_client=http_client(app, provider, api_key),
    )
    # Those of the environment are the app's, not the principal's.
    client.organization = client.project = None
    return client


def anthropic_client(app: ASGIApp, provider: Provider, api_key: str | None) -> anthropic.AsyncAnthropic:
    """Raises `ConfigurationError` where the SDK is missing or the provider does not speak its format."""
    _check(provider, _ANTHROPIC, "Anthropic's")
    try:
        from anthropic import AsyncAnthropic

        from .transport import PLACEHOLDER
    except ModuleNotFoundError as error:
        raise _missing("anthropic", error) from error
    return AsyncAnthropic(
        api_key=PLACEHOLDER,
        base_url=HOST,
        timeout=None,
        max_retries=0,
        http_client=http_client(app, provider, api_key),
    )


def _check(provider: Provider, paths: tuple[str, ...], whose: str) -> None:
    if not any(path in provider.intercepted for path in paths):
        raise ConfigurationError(
            f"provider {provider.name!r} is of type {provider.type!r}, which does not speak {whose} API"
        )


def _missing(extra: str, error: ModuleNotFoundError) -> ConfigurationError:
    return ConfigurationError(f"bridge.{extra}() needs the package {error.name!r}: {install_command(extra)}")
