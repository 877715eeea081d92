"""Workers of one app with separate settings, in the test's process and on one database."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.errors import SettingsError

ADMIN = {"Authorization": "Bearer t-admin"}


class AppWorker:
    """A worker that runs while the block does.

    `key` is the provider's key in its settings; while `refused` is set, they do not validate.
    """

    def __init__(self, url: str | None, key: str = "sk-old", **values: Any) -> None:
        self._recorder = {"enabled": False} if url is None else {"url": url}
        self._values = values
        self.key = key
        self.refused = False
        self.refusal = "AIBRIDGE_PROVIDERS__OPENAI__API_KEY: is missing on this machine"
        self.reads = 0
        self.aibridge = AIBridge(self._settings)
        self._app = FastAPI()
        self._app.include_router(self.aibridge.router)

    def _settings(self) -> Settings:
        self.reads += 1
        if self.refused:
            raise SettingsError(self.refusal)
        return Settings(
            providers={"openai": {"api_key": self.key}},
            client_keys={"alice": "k-alice"},
            admin_token="t-admin",
            recorder=self._recorder,
            shutdown_grace=0,
            **self._values,
        )

    async def __aenter__(self) -> Self:
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self._app), base_url="http://worker", headers=ADMIN, timeout=20
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()
        await self._lifespan.__aexit__(kind, error, traceback)

    @property
    def in_force(self) -> str:
        """The provider's key that a request would use now."""
        (provider,) = self.aibridge.pool.providers
        (key,) = self.aibridge.settings.providers[provider.name].keys
        return key.get_secret_value()

    @property
    def id(self) -> str:
        return str(self.aibridge._host.runtime.recorder.presence.id)  # type: ignore[attr-defined]

    async def get(self, path: str) -> httpx.Response:
        return await self._http.get(path)

    async def reload(self) -> httpx.Response:
        return await self._http.post("/admin/reload")

    async def reached(self) -> Any:
        """Reload this worker, which must succeed, and return the response's report on the workers."""
        answer = await self.reload()
        assert answer.status_code == 200, answer.text
        return answer.json()["workers"]

    async def items(self) -> list[dict[str, Any]]:
        answer = await self.get("/admin/workers")
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


async def reloaded_at_once(*workers: AppWorker) -> list[Any]:
    return await asyncio.gather(*(worker.reached() for worker in workers))
