"""The gateway's settings: from the environment, or those of a demonstration if the environment names no provider."""

from __future__ import annotations

from typing import Any

from pydantic import HttpUrl, SecretStr

from example_app.offline import KEY, OfflineServer
from example_app.tools import NAME, ToolServer
from fastapi_aibridge import MCPServerSettings, ProviderSettings, Settings

DEMO_CLIENT_KEYS = {"alice": "demo-alice", "bob": "demo-bob"}
DEMO_ADMIN_TOKEN = "demo-admin"


class SettingsSource:
    """Reads the settings anew at each call, so that a reload sees every change.

    The demonstration keys are valid for the offline provider alone: an app with a real provider has no default keys.
    """

    def __init__(self, offline: OfflineServer, tools: ToolServer) -> None:
        self.offline = offline
        self.tools = tools

    def __call__(self) -> Settings:
        """Return the settings. Raises `SettingsError` if one does not validate."""
        settings = Settings.load()
        if settings.providers:
            return settings
        base_url, key = self.offline.start(), SecretStr(KEY)
        demo: dict[str, Any] = {
            "providers": {
                "openai": ProviderSettings(type="openai", base_url=HttpUrl(f"{base_url}/v1"), api_key=key),
                "anthropic": ProviderSettings(type="anthropic", base_url=HttpUrl(base_url), api_key=key),
            }
        }
        if not settings.mcp_servers:
            demo["mcp_servers"] = {NAME: MCPServerSettings(url=SecretStr(self.tools.start()))}
        if not settings.client_keys:
            demo["client_keys"] = {user: (SecretStr(client_key),) for user, client_key in DEMO_CLIENT_KEYS.items()}
        if settings.admin_token is None:
            demo["admin_token"] = SecretStr(DEMO_ADMIN_TOKEN)
        return settings.model_copy(update=demo)
