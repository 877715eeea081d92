"""pydantic-ai on the caller's bridge."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from fastapi_aibridge import RequestBridge
from fastapi_aibridge.testing import Reply, ScriptedProvider, ToolCall, scripted_bridge


def openai_agent(bridge: RequestBridge) -> Agent[None, str]:
    return Agent(OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(openai_client=bridge.openai())))


def anthropic_agent(bridge: RequestBridge) -> Agent[None, str]:
    return Agent(AnthropicModel("claude-sonnet-5", provider=AnthropicProvider(anthropic_client=bridge.anthropic())))


def weather(city: str) -> str:
    return f"rain in {city}"


async def main() -> None:
    provider = ScriptedProvider(Reply())
    async with scripted_bridge(provider) as bridge:
        for agent in (openai_agent(bridge), anthropic_agent(bridge)):
            agent.tool_plain(weather)
            provider.script = [Reply(tool_calls=[ToolCall("weather", {"city": "Bern"})]), Reply("It rains in Bern.")]
            assert (await agent.run("How is the weather in Bern?")).output == "It rains in Bern."
            assert "rain in Bern" in str(provider.received[-1].json())
            provider.script = Reply("It rains in Bern.")
            async with agent.run_stream("And tomorrow?") as stream:
                pieces = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
            assert pieces == ["It", " rains", " in", " Bern."]


if __name__ == "__main__":
    asyncio.run(main())
