"""LangChain on the caller's bridge."""

from __future__ import annotations

import asyncio

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from fastapi_aibridge import RequestBridge
from fastapi_aibridge.testing import Reply, ScriptedProvider, scripted_bridge


def chat_openai(bridge: RequestBridge) -> ChatOpenAI:
    client = bridge.http_client("openai")
    return ChatOpenAI(model="gpt-5", api_key="none", max_retries=0, http_async_client=client)


def chat_anthropic(bridge: RequestBridge) -> ChatAnthropic:
    model = ChatAnthropic(model="claude-sonnet-5", api_key="none")
    # It takes no client. The one that it would make is a cached property, so that it can be put there first.
    model.__dict__["_async_client"] = bridge.anthropic()
    return model


async def main() -> None:
    async with scripted_bridge(ScriptedProvider(Reply("It rains in Bern."))) as bridge:
        for model in (chat_openai(bridge), chat_anthropic(bridge)):
            assert (await model.ainvoke("How is the weather in Bern?")).text == "It rains in Bern."
            pieces = [chunk.text async for chunk in model.astream("And tomorrow?")]
            assert [piece for piece in pieces if piece] == ["It", " rains", " in", " Bern."]


if __name__ == "__main__":
    asyncio.run(main())
