"""The test kit, which replaces real providers by a scripted one."""

from __future__ import annotations

import asyncio
from importlib.metadata import entry_points
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge import AIBridge, ConfigurationError, Principal, RequestBridge, Settings, get_bridge
from fastapi_aibridge.testing import (
    MemoryRecorder,
    Reply,
    ScriptedProvider,
    override_bridge,
    override_providers,
    scripted_bridge,
)

KEY = {"Authorization": "Bearer k-alice"}


class Shop:
    """An app with production settings whose provider a test must not reach."""

    def __init__(self) -> None:
        self.app = FastAPI()
        unreachable = {"type": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "sk-real"}
        settings = Settings(providers={"eu": unreachable}, client_keys={"alice": "k-alice"})
        self.aibridge = AIBridge(settings, recorder=MemoryRecorder())
        self.app.include_router(self.aibridge.router, prefix="/ai")

        @self.app.post("/ask")
        async def ask(text: str, bridge: Annotated[RequestBridge, Depends(get_bridge)]) -> str:
            [provider] = bridge.providers
            return (await bridge.openai(provider.name).responses.create(model="gpt-5", input=text)).output_text


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider(Reply("Scripted."))


def test_providers_are_replaced_under_their_names(shop: Shop, provider: ScriptedProvider) -> None:
    """Gateway and handlers use the scripted provider under the names of the app's own providers."""
    with override_providers(shop.aibridge, provider) as recorder, TestClient(shop.app, headers=KEY) as client:
        assert client.post("/ask?text=Hello").json() == "Scripted."
        client.post("/ai/eu/v1/responses", json={"model": "gpt-5", "input": "Hello"}).raise_for_status()
        assert client.post("/ask?text=Hello", headers={"Authorization": "Bearer other"}).status_code == 401
    assert [record.interception.provider for record in recorder.records] == ["eu", "eu"]
    assert len(provider.received) == 2


def test_providers_are_given_back(shop: Shop, provider: ScriptedProvider) -> None:
    """After the block the app starts with its own settings again."""
    with override_providers(shop.aibridge, provider), TestClient(shop.app):
        assert shop.aibridge.settings.providers["eu"].base_url != shop.aibridge.settings.providers["eu"].type
        assert "127.0.0.1:1/" not in str(shop.aibridge.settings.providers["eu"].base_url)
    with TestClient(shop.app):
        assert str(shop.aibridge.settings.providers["eu"].base_url) == "http://127.0.0.1:1/v1"


def test_a_reload_keeps_the_script(shop: Shop, provider: ScriptedProvider) -> None:
    """A reload within the block keeps the scripted provider."""
    with override_providers(shop.aibridge, provider), TestClient(shop.app, headers=KEY) as client:
        assert client.portal
        client.portal.call(shop.aibridge.reload)
        assert client.post("/ask?text=Hello").json() == "Scripted."


def test_an_app_that_runs_is_left_alone(shop: Shop, provider: ScriptedProvider) -> None:
    """Overriding a running app is refused, and the error says what to do."""
    with TestClient(shop.app), pytest.raises(ConfigurationError, match="before it starts"):
        override_providers(shop.aibridge, provider).__enter__()


def test_handlers_alone(shop: Shop, provider: ScriptedProvider) -> None:
    """Handlers get a scripted bridge without lifespan, key or settings."""
    names = {"eu": "openai"}
    with override_bridge(shop.app, provider, principal=Principal("carol"), names=names) as recorder:
        assert TestClient(shop.app).post("/ask?text=Hello").json() == "Scripted."
        with TestClient(shop.app) as client:
            assert client.post("/ask?text=Hello").json() == "Scripted."
    assert shop.app.dependency_overrides == {}
    assert [record.interception.initiator_id for record in recorder.records] == ["carol", "carol"]


def test_an_override_by_hand(shop: Shop, provider: ScriptedProvider) -> None:
    """`dependency_overrides[get_bridge]` accepts any dependency that returns a bridge."""

    async def scripted() -> object:
        async with scripted_bridge(provider, names={"eu": "openai"}) as bridge:
            yield bridge

    shop.app.dependency_overrides[get_bridge] = scripted
    assert TestClient(shop.app).post("/ask?text=Hello").json() == "Scripted."


def test_code_that_takes_a_bridge(provider: ScriptedProvider) -> None:
    """A function that takes a bridge is tested with both vendors' clients."""

    async def use() -> tuple[str, str]:
        async with scripted_bridge(provider, Principal("carol")) as bridge:
            assert bridge.principal == Principal("carol")
            answer = await bridge.openai().responses.create(model="gpt-5", input="Hello")
            async with bridge.anthropic().messages.stream(
                model="claude-sonnet-5", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
            ) as stream:
                return answer.output_text, await stream.get_final_text()

    assert asyncio.run(use()) == ("Scripted.", "Scripted.")


def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, shop: Shop, provider: ScriptedProvider) -> None:
    """A scripted bridge ignores the environment's settings."""
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__OPENAI__BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("AIBRIDGE_POOL__MAX_ITEMS", "none")
    with override_bridge(shop.app, provider, names={"eu": "openai"}):
        assert TestClient(shop.app).post("/ask?text=Hello").json() == "Scripted."


def test_the_script_can_change(provider: ScriptedProvider) -> None:
    """A new script takes effect with the next call."""

    async def use() -> list[str]:
        async with scripted_bridge(provider) as bridge:
            texts = []
            for script in (Reply("one"), [Reply("two"), Reply("three")], lambda _: Reply("four")):
                provider.script = script
                texts.append((await bridge.openai().responses.create(model="gpt-5", input="Hello")).output_text)
            return texts

    assert asyncio.run(use()) == ["one", "two", "four"]


def test_nobody_elses_test_run_imports_the_fixtures() -> None:
    """Only `pytest_plugins` loads the fixtures: an entry point would import the package in every run of pytest."""
    assert not [one for one in entry_points(group="pytest11") if one.module.startswith("fastapi_aibridge")]
