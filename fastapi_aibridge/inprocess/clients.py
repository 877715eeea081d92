"""Clients of one bridge: the vendors' SDKs, and the HTTP client below them. Each is imported at its first use."""

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
"""A host that never resolves (RFC 2606), so that traffic past our transport, such as WebSockets, reaches nobody."""

_OPENAI = ("/v1/responses", "/v1/chat/completions")
_ANTHROPIC = ("/v1/messages",)


def http_client(app: ASGIApp, provider: Provider, api_key: str | None) -> httpx2.AsyncClient:
    """Make an HTTP client without timeouts, because those of the provider's settings apply.

    Raises `ConfigurationError` without httpx2.
    """
    try:
        import httpx2

        from .transport import InProcessTransport
    except ModuleNotFoundError as error:
        raise ConfigurationError("a client in process needs httpx2: pip install httpx2") from error
    return httpx2.AsyncClient(
        transport=InProcessTransport(app, provider.name, api_key), base_url=HOST, timeout=None, trust_env=False
    )


def openai_client(app: ASGIApp, provider: Provider, api_key: str | None) -> openai.AsyncOpenAI:
    """Make a client of OpenAI's SDK. Raises `ConfigurationError` if the SDK is missing, or for another API."""
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
    # The SDK read these from the environment, but they are the app's and not the principal's.
    client.organization = client.project = None
    return client


def anthropic_client(app: ASGIApp, provider: Provider, api_key: str | None) -> anthropic.AsyncAnthropic:
    """Make a client of Anthropic's SDK. Raises `ConfigurationError` if the SDK is missing, or for another API."""
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
