"""Gateways with simple prices: an output token costs one cent, input is free."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx

from fastapi_aibridge.testing import Reply
from fastapi_aibridge.testing.replies import Usage
from tests.e2e.records.serving import CHAT, MESSAGES, RESPONSES, Gateway, gateway

CENT = {"input": 0, "output": 10_000, "cache_read": 0, "cache_write": 0}
"""Prices in US dollars per million tokens."""
PRICES = {
    "openai": {"gpt-5": CENT, "dear": {**CENT, "output": 100_000}, "free": {**CENT, "output": 0}},
    "anthropic": {"gpt-5": CENT},
}
HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI, "max_completion_tokens": 10},
    RESPONSES: {"input": "hi", "max_output_tokens": 10},
    MESSAGES: {"messages": HI, "max_tokens": 10},
}
COUNT = "/ai/anthropic/v1/messages/count_tokens"


def reply(cents: int = 5, text: str = "Hello", **given: Any) -> Reply:
    return Reply(text, usage=Usage(input_tokens=0, output_tokens=cents), **given)


def budget(usd: float, scope: str = "initiator", id: str = "alice", **given: Any) -> dict[str, Any]:  # noqa: A002
    return {"scope": scope, "usd": usd, **({"id": id} if scope not in ("default", "everybody") else {}), **given}


def budgeted(
    *budgets: dict[str, Any], url: str = "sqlite+aiosqlite://", **given: Any
) -> AbstractAsyncContextManager[Gateway]:
    """Start a gateway whose responses cost five cents, with ten cents reserved for each."""
    return gateway(url, budgets=list(budgets), **{"reply": reply(), "prices": PRICES, **given})


async def ask(gateway: Gateway, path: str = CHAT, *, key: str = "k-alice", **given: Any) -> httpx.Response:
    """Send a request; `given` are members of its body, and None removes a member."""
    body = {"model": "gpt-5", **BODIES.get(path, {"messages": HI}), **given}
    content = json.dumps({name: value for name, value in body.items() if value is not None})
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as http:
        return await http.post(path, content=content, headers={"Authorization": f"Bearer {key}"})


async def admin(gateway: Gateway, method: str, path: str, body: Any = None, token: str = "t-admin") -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {token}"}
        return await http.request(method, f"/ai/admin{path}", json=body, headers=headers)


async def me(gateway: Gateway, path: str, key: str = "k-alice") -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30, trust_env=False) as http:
        return await http.get(f"/ai/me{path}", headers={"Authorization": f"Bearer {key}"})


__all__ = [
    "CHAT",
    "COUNT",
    "MESSAGES",
    "PRICES",
    "RESPONSES",
    "Gateway",
    "admin",
    "ask",
    "budget",
    "budgeted",
    "me",
    "reply",
]
