"""Limits as clients of a gateway experience them."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_aibridge import Settings, Status

from ...upstream.app import CHAT, running
from ...upstream.raw import SILENCE, Answer

pytestmark = pytest.mark.anyio

OK = Answer(200, b'{"id":"c1","object":"chat.completion","choices":[]}')
EVENT = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
ENDLESS = Answer(200, EVENT, {"content-type": "text/event-stream", "content-length": "100000"})
HEADERS = {"authorization": "Bearer key-of-alice"}


async def test_at_capacity() -> None:
    """Over the process's limit every caller gets 503 in the provider's shape, at once and without a record."""
    async with running(SILENCE, limits={"max_concurrent": 1}) as app:
        held = asyncio.create_task(app.chat())
        await app.upstream.arrived.wait()
        answer = await app.chat("bob")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "at_capacity"
        assert len(await app.records()) == 1
        held.cancel()
        await asyncio.wait((held,))
        app.upstream.answers = [OK]
        assert (await app.chat("bob")).status_code == 200


async def test_too_many_at_once() -> None:
    """Over its own limit a principal gets 429 after the wait, and another principal is served."""
    async with running(SILENCE, OK, limits={"max_concurrent_per_principal": 1, "max_wait": 0.01}) as app:
        held = asyncio.create_task(app.chat())
        await app.upstream.arrived.wait()
        answer = await app.chat()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["type"] == "rate_limit_error"
        models = await app.client.get("/ai/openai/v1/models", headers=HEADERS)
        assert models.status_code == 429
        assert (await app.chat("bob")).status_code == 200
        assert 'aibridge_refused_total{code="too_many_concurrent_requests"} 2.0' in await app.admin("metrics")
        held.cancel()
        await asyncio.wait((held,))


async def test_requests_in_a_window() -> None:
    """A request over the window's limit gets 429 with the time to come back."""
    async with running(OK, limits={"requests": 2, "window": 60}) as app:
        assert [(await app.chat()).status_code for _ in range(3)] == [200, 200, 429]
        assert (await app.chat()).headers["retry-after"] in ("60", "61")
        assert (await app.chat("bob")).status_code == 200


async def test_streams_can_be_capped() -> None:
    """A stream over the maximum duration ends in an error event, and its record has the reason."""
    async with running(ENDLESS, limits={"max_stream_duration": 0.2}) as app:
        answer = await app.client.post(CHAT, headers=HEADERS, json={"model": "m", "messages": [], "stream": True})
        assert answer.content.startswith(EVENT)
        assert b"stream_too_long" in answer.content[len(EVENT) :]
        ending = (await app.record(answer)).ending
        assert ending is not None
        assert ending.status is Status.FAILED
        assert ending.error == "the stream took longer than the gateway's limit of 0.2 s"


async def test_reload_changes_limits() -> None:
    """A reload applies changed limits."""
    limits = {"requests": 1, "window": 60}
    async with running(OK, limits=limits) as app:
        assert [(await app.chat()).status_code for _ in range(2)] == [200, 429]
        del limits["requests"]
        await app.aibridge.reload()
        assert (await app.chat()).status_code == 200


async def test_reload_changes_the_memory_for_bodies() -> None:
    """A reload applies a changed budget of memory for bodies."""
    memory = {"bodies": 1000}
    large = {"model": "m", "messages": [{"role": "user", "content": "x" * 600}]}
    async with running(OK, memory=memory) as app:
        assert (await app.client.post(CHAT, headers=HEADERS, json=large)).status_code == 413
        memory["bodies"] = 100_000
        await app.aibridge.reload()
        assert (await app.client.post(CHAT, headers=HEADERS, json=large)).status_code == 200


async def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are read from environment variables that are named after the settings."""
    monkeypatch.setenv("AIBRIDGE_LIMITS__MAX_CONCURRENT", "9")
    monkeypatch.setenv("AIBRIDGE_LIMITS__MAX_CONCURRENT_PER_PRINCIPAL", "3")
    monkeypatch.setenv("AIBRIDGE_LIMITS__REQUESTS", "7")
    monkeypatch.setenv("AIBRIDGE_LIMITS__WINDOW", "1m")
    limits = Settings.load().limits
    assert (limits.max_concurrent, limits.per_principal, limits.requests, limits.window) == (9, 3, 7, 60)
