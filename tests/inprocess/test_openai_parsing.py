"""The openai SDK's structured outputs, over a socket and in process."""

from __future__ import annotations

import pytest
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel

from fastapi_aibridge.testing import Reply, ToolCall

from .harness import GatewayHarness
from .test_openai_chat import HELLO

pytestmark = pytest.mark.anyio


class City(BaseModel):
    name: str
    inhabitants: int


BERN = Reply('{"name": "Bern", "inhabitants": 134000}')


async def test_chat(harness: GatewayHarness) -> None:
    """A chat response is parsed into the model whose schema was sent upstream."""

    async def use(client: AsyncOpenAI) -> object:
        answer = await client.chat.completions.parse(model="gpt-5", messages=HELLO, response_format=City)
        return answer.choices[0].message.parsed

    assert await harness.openai(BERN, use) == City(name="Bern", inhabitants=134_000)
    assert harness.provider.received[1].json()["response_format"]["json_schema"]["name"] == "City"


async def test_responses(harness: GatewayHarness) -> None:
    """A response is parsed into the model."""

    async def use(client: AsyncOpenAI) -> object:
        return (await client.responses.parse(model="gpt-5", input="Bern?", text_format=City)).output_parsed

    assert await harness.openai(BERN, use) == City(name="Bern", inhabitants=134_000)


async def test_a_stream(harness: GatewayHarness) -> None:
    """A streamed response is parsed when it ends."""

    async def use(client: AsyncOpenAI) -> object:
        async with client.responses.stream(model="gpt-5", input="Bern?", text_format=City) as stream:
            return (await stream.get_final_response()).output_parsed

    assert await harness.openai(BERN, use) == City(name="Bern", inhabitants=134_000)


async def test_the_arguments_of_a_tool(harness: GatewayHarness) -> None:
    """A tool's arguments are parsed into its model."""

    async def use(client: AsyncOpenAI) -> object:
        answer = await client.chat.completions.parse(
            model="gpt-5", messages=HELLO, tools=[pydantic_function_tool(City)]
        )
        return [call.function.parsed_arguments for call in answer.choices[0].message.tool_calls or ()]

    script = Reply(tool_calls=[ToolCall("City", {"name": "Bern", "inhabitants": 134_000}, "call_1")])
    assert await harness.openai(script, use) == [City(name="Bern", inhabitants=134_000)]
