"""instructor on the caller's bridge."""

from __future__ import annotations

import asyncio

import instructor
from pydantic import BaseModel

from fastapi_aibridge import RequestBridge
from fastapi_aibridge.testing import Reply, ScriptedProvider, ToolCall, scripted_bridge


class City(BaseModel):
    name: str
    inhabitants: int


async def city_by_openai(bridge: RequestBridge, text: str) -> City:
    client = instructor.from_openai(bridge.openai())
    return await client.chat.completions.create(
        model="gpt-5", response_model=City, messages=[{"role": "user", "content": text}]
    )


async def city_by_anthropic(bridge: RequestBridge, text: str) -> City:
    client = instructor.from_anthropic(bridge.anthropic())
    return await client.messages.create(
        model="claude-sonnet-5", max_tokens=500, response_model=City, messages=[{"role": "user", "content": text}]
    )


async def main() -> None:
    script = Reply(tool_calls=[ToolCall("City", {"name": "Bern", "inhabitants": 134_000})])
    async with scripted_bridge(ScriptedProvider(script)) as bridge:
        for city in (city_by_openai, city_by_anthropic):
            found = await city(bridge, "Bern has 134,000 inhabitants.")
            assert (found.name, found.inhabitants) == ("Bern", 134_000)


if __name__ == "__main__":
    asyncio.run(main())
