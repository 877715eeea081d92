"""Warnings at the start of a gateway that can serve nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fastapi_aibridge import AIBridge, MemoryRecorder, Principal, Settings

pytestmark = pytest.mark.anyio

PROVIDER: dict[str, Any] = {"openai": {"api_key": "sk-1"}}
NO_PROVIDER, NO_CALLER = "no provider is configured", "nobody can call"


async def warnings(caplog: pytest.LogCaptureFixture, aibridge: AIBridge) -> str:
    caplog.set_level(logging.WARNING, "fastapi_aibridge")
    async with aibridge.lifespan(None):
        return caplog.text


async def test_no_provider(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's own variable, which many try first, configures no provider, and the log says so."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    said = await warnings(caplog, AIBridge(Settings(client_keys={"alice": "k"}), recorder=MemoryRecorder()))
    assert NO_PROVIDER in said
    assert "AIBRIDGE_PROVIDERS__OPENAI__API_KEY" in said
    assert NO_CALLER not in said


async def test_a_disabled_provider_is_none(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(providers={"openai": {"enabled": False}}, client_keys={"alice": "k"})
    assert NO_PROVIDER in await warnings(caplog, AIBridge(settings, recorder=MemoryRecorder()))


async def test_no_client_key(caplog: pytest.LogCaptureFixture) -> None:
    said = await warnings(caplog, AIBridge(Settings(providers=PROVIDER), recorder=MemoryRecorder()))
    assert NO_CALLER in said
    assert NO_PROVIDER not in said


async def test_the_apps_own_principal_needs_no_client_key(caplog: pytest.LogCaptureFixture) -> None:
    async def principal() -> Principal:
        return Principal("alice")

    aibridge = AIBridge(Settings(providers=PROVIDER), principal=principal, recorder=MemoryRecorder())
    assert await warnings(caplog, aibridge) == ""
