"""The settings of the example app: a demonstration, or those of the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from example_app.offline import KEY, OfflineServer
from example_app.settings import SettingsSource
from example_app.tools import ToolServer
from example_app.welcome import text
from fastapi_aibridge import Settings


@pytest.fixture
def source() -> Iterator[SettingsSource]:
    source = SettingsSource(OfflineServer(), ToolServer())
    yield source
    source.offline.stop()
    source.tools.stop()


def client_keys(settings: Settings) -> dict[str, str]:
    return {user: keys[0].get_secret_value() for user, keys in settings.client_keys.items()}


def admin_token(settings: Settings) -> str | None:
    return settings.admin_token.get_secret_value() if settings.admin_token else None


def test_an_empty_environment_is_a_demonstration(source: SettingsSource) -> None:
    """Without a provider the offline one replaces both vendors, with users and an admin token of its own."""
    settings = source()
    base_url = source.offline.start()
    urls = {name: str(provider.base_url).rstrip("/") for name, provider in settings.providers.items()}
    assert urls == {"openai": f"{base_url}/v1", "anthropic": base_url}
    assert {key.get_secret_value() for provider in settings.providers.values() for key in provider.keys} == {KEY}
    assert client_keys(settings) == {"alice": "demo-alice", "bob": "demo-bob"}
    assert admin_token(settings) == "demo-admin"


def test_a_reload_finds_the_same_demonstration(source: SettingsSource) -> None:
    """A second reading gives equal settings, because the offline provider keeps its address."""
    assert source().providers == source().providers


def test_own_users_replace_the_demo_users(source: SettingsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client keys of the environment replace the demonstration's."""
    monkeypatch.setenv("AIBRIDGE_CLIENT_KEYS__CAROL", "k-carol")
    settings = source()
    assert client_keys(settings) == {"carol": "k-carol"}
    assert admin_token(settings) == "demo-admin"


def test_an_own_admin_token_replaces_the_demo_token(source: SettingsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin token of the environment replaces the demonstration's."""
    monkeypatch.setenv("AIBRIDGE_ADMIN_TOKEN", "secret")
    settings = source()
    assert admin_token(settings) == "secret"
    assert set(client_keys(settings)) == {"alice", "bob"}


def test_an_own_provider_ends_the_demonstration(source: SettingsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a provider in the environment nothing is added, and no offline provider starts."""
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-real")
    settings = source()
    assert list(settings.providers) == ["openai"]
    assert (client_keys(settings), admin_token(settings)) == ({}, None)
    assert not source.offline.running


def test_a_provider_in_the_configuration_file_counts_too(
    source: SettingsSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A provider that is added to the file ends the demonstration at the next reload."""
    file = tmp_path / "aibridge.toml"
    file.touch()
    monkeypatch.setenv("AIBRIDGE_CONFIG_FILE", str(file))
    assert set(source().providers) == {"openai", "anthropic"}
    file.write_text('[providers.house]\ntype = "openai"\napi_key = "sk-real"\n')
    settings = source()
    assert list(settings.providers) == ["house"]
    assert client_keys(settings) == {}


def test_the_text_fits_the_demonstration(source: SettingsSource) -> None:
    """The start-up text of a demonstration has its keys and the commands that the offline provider obeys."""
    shown = text("http://127.0.0.1:8000", source(), offline=True)
    assert "Bearer demo-alice" in shown
    assert "Bearer demo-admin" in shown
    assert "fail stream" in shown
    assert "$" not in shown


def test_the_text_shows_no_key_of_ones_own(source: SettingsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys and providers of the environment, the text has placeholders for the keys and the providers' names."""
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__HOUSE__TYPE", "openai")
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__HOUSE__API_KEY", "sk-real")
    monkeypatch.setenv("AIBRIDGE_CLIENT_KEYS__CAROL", "k-carol")
    monkeypatch.setenv("AIBRIDGE_ADMIN_TOKEN", "secret")
    shown = text("http://127.0.0.1:8000", source(), offline=False)
    assert "/ai/house/v1/responses" in shown
    assert not any(secret in shown for secret in ("sk-real", "k-carol", "secret", "demo-"))
    assert "YOUR_ADMIN_TOKEN" in shown


def test_the_text_says_how_to_open_the_admin_routes(source: SettingsSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an admin token the text names the setting instead of commands that would get 403."""
    monkeypatch.setenv("AIBRIDGE_PROVIDERS__OPENAI__API_KEY", "sk-real")
    shown = text("http://127.0.0.1:8000", source(), offline=False)
    assert "set AIBRIDGE_ADMIN_TOKEN" in shown
    assert "/admin/reload" not in shown
