"""Schemas that a provider would refuse, end to end: offered in another form, called by the tool's own names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_aibridge.testing import Received, Reply, ToolCall

from ...formats.rounds.driving import KINDS, MESSAGES, Kind
from ...mcp.servers import ToolServer
from ...tool_schemas.providers import refusals
from .harness import harness
from .test_loop import results_of

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {
        "$.xgafv": {"type": ["string", "null"]},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}},
        "anything": {"type": "array"},
    },
    "required": ["gone"],
    "$defs": {"Row": {"type": "object", "properties": {"a b": {"const": 1}, "next": {"$ref": "#/$defs/Row"}}}},
    "oneOf": [{"required": ["rows"]}],
}


def parameters_of(kind: Kind, body: dict[str, Any]) -> list[dict[str, Any]]:
    tools = body["tools"]
    return [one.get("input_schema") or one.get("parameters") or one["function"]["parameters"] for one in tools]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)
async def test_a_schema_that_a_provider_would_refuse(kind: Kind) -> None:
    """No provider refuses the offered schemas, and the tool gets its own names at any depth."""
    with ToolServer() as server:
        server.schema = SCHEMA

        def script(received: Received) -> Reply:
            if results_of(kind, received.json()):
                return Reply(text="Done.")
            offered = parameters_of(kind, received.json())[0]["properties"]
            odd = next(name for name in offered if name.endswith(tuple("0123456789abcdef")) and "xgafv" in name)
            row = next(name for name in offered["rows"]["items"]["properties"] if name != "next")
            return Reply(tool_calls=[ToolCall("bmcp_box_echo", {odd: "1", "rows": [{row: 1}], "text": "hi"}, "c1")])

        async with harness(script, {"box": server.url}) as home:
            seen = await home.ask(kind, streamed=False)
            assert seen.text == "Done."
            assert [refusals(one) for one in parameters_of(kind, home.upstream[0])] == [[]] * 10
            assert server.calls == [("echo", {"$.xgafv": "1", "rows": [{"a b": 1}], "text": "hi"})]
            record = await home.record()
            assert record.facts.tool_usages[0].tool == "echo"


@pytest.mark.parametrize("own", [0, 60, 128, 150])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.path)
async def test_more_tools_than_a_provider_takes(kind: Kind, own: int, caplog: pytest.LogCaptureFixture) -> None:
    """OpenAI takes 128 tools in a request: the client's own go first, surplus injected ones are left out and logged."""
    with ToolServer() as server:
        server.extra = [f"tool_{number:03}" for number in range(130)]
        server.page_size = 1000
        async with harness(Reply(text="Done."), {"box": server.url}) as home:
            mine = [json.loads(json.dumps(kind.own_tool).replace("read", f"read_{number}")) for number in range(own)]
            members: dict[str, Any] = {"tools": mine} if mine else {}
            await home.ask(kind, streamed=False, **members)
            offered = len(home.upstream[0].get("tools", ()))
    if kind is MESSAGES:
        assert offered == 140 + own
        assert "takes 128" not in caplog.text
    else:
        assert offered == max(own, 128)
        assert "takes 128" in caplog.text
        assert caplog.text.count("bmcp_box_") == 10
