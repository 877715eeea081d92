"""The injected tool of the offline demonstration, used through the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from example_app.main import create_app


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        database = tmp_path_factory.mktemp("records") / "records.db"
        patch.setenv("AIBRIDGE_RECORDER__URL", f"sqlite+aiosqlite:///{database}")
        with TestClient(create_app(), headers={"authorization": "Bearer demo-alice"}) as client:
            yield client


ASKED = 'call clock {"zone": "Asia/Tokyo"}'
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/ai/openai/v1/chat/completions", {"messages": [{"role": "user", "content": ASKED}]}),
    "responses": ("/ai/openai/v1/responses", {"input": ASKED}),
    "messages": ("/ai/anthropic/v1/messages", {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 99}),
}


def tool_usages(client: TestClient) -> list[dict[str, Any]]:
    """Return those of the newest record, once its end is written, which may be after the response."""
    deadline = time.monotonic() + 30
    while True:
        records = client.get("/ai/admin/interceptions?limit=1", headers={"authorization": "Bearer demo-admin"})
        record = records.json()["items"][0]
        if record["ended_at"] is not None or time.monotonic() > deadline:
            usages: list[dict[str, Any]] = record["tool_usages"]
            return usages


@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streamed"])
@pytest.mark.parametrize("api", REQUESTS)
def test_the_injected_tool_works_offline(client: TestClient, api: str, stream: bool) -> None:
    """The model calls the clock, the gateway runs it, and the client sees the time and no tool call."""
    path, members = REQUESTS[api]
    reply = client.post(path, json={"model": "any", "stream": stream, **members})
    assert reply.status_code == 200
    assert "+09:00" in reply.text
    assert "bmcp_" not in reply.text
    (usage,) = tool_usages(client)
    assert (usage["tool"], usage["server"], usage["injected"], usage["error"]) == ("clock", "demo", True, None)
