"""Shared by the tests of the plugin: a model that responds, settings that reach it, principals and headers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge import AIBridge, MemoryRecorder, Principal, RequestBridge, Settings, get_bridge
from fastapi_aibridge.testing import Received, ScriptedProvider

ASK = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/ai/openai/v1/chat/completions"
BridgeDep = Annotated[RequestBridge, Depends(get_bridge)]


@dataclass(frozen=True, slots=True)
class Model:
    """The upstream: a scripted provider, the requests that it received, and apps that use it."""

    provider: ScriptedProvider
    url: str

    @property
    def received(self) -> list[Received]:
        return self.provider.received

    def settings(self, **values: Any) -> Settings:
        return Settings(
            **{
                "providers": {
                    "openai": {"base_url": f"{self.url}/v1", "api_key": "sk-central-openai", "max_retries": 0},
                    "anthropic": {"base_url": self.url, "api_key": "sk-ant-central-key", "max_retries": 0},
                },
                "client_keys": {"alice": "k-alice", "bob": "k-bob"},
                "admin_token": "t-admin",
                "forward_headers": ["*"],  # so that headers which are not forwarded were held back for another reason
                "shutdown_grace": 0,
                **values,
            }
        )

    def bridge(self, principal: Any = None, **options: Any) -> AIBridge:
        options = {"recorder": MemoryRecorder(), **options}
        return AIBridge(options.pop("settings", None) or self.settings(), principal=principal, **options)

    def app(self, principal: Any = None, *, include: dict[str, Any] | None = None, **options: Any) -> FastAPI:
        """An app with the gateway at `/ai` and a handler `/me` that returns its bridge's principal."""
        app = FastAPI(**options)
        aibridge = self.bridge(principal)
        app.state.aibridge = aibridge
        app.include_router(aibridge.router, prefix="/ai", **(include or {}))
        add_me(app)
        return app


def add_me(app: FastAPI) -> None:
    @app.get("/me")
    async def me(bridge: BridgeDep) -> dict[str, str]:
        return {"initiator": bridge.principal.initiator_id, "key": bridge.principal.api_key_id}


def by(initiator: str, key: str = "") -> Principal:
    return Principal(initiator, key)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


ALICE = bearer("k-alice")
ADMIN = bearer("t-admin")


def initiators(client: TestClient) -> list[str]:
    """The initiators of the recorded interceptions, newest first."""
    items = client.get("/ai/admin/interceptions", headers=ADMIN).json()["items"]
    return [item["initiator_id"] for item in items]


def is_openai_error(body: bytes) -> bool:
    value = json.loads(body)
    return set(value) == {"error"} and {"message", "type", "code"} <= set(value["error"])
