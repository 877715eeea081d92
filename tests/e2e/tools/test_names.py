"""A client with tools that have the injected tools' names, as another gateway in front of this one has."""

from __future__ import annotations

import pytest

from fastapi_aibridge.testing import Reply

from ...formats.rounds.driving import Kind
from ...formats.rounds.test_names import named
from ...mcp.servers import ToolServer
from .harness import harness, tool

pytestmark = pytest.mark.anyio


async def test_a_call_of_the_clients_own_tool_is_recorded_as_that(
    kind: Kind, streamed: bool, server: ToolServer
) -> None:
    """The call is passed on, not run, and recorded as one without a server."""
    async with harness([Reply(tool_calls=[tool("echo", "c1", text="x")])], {"box": server.url}) as home:
        own = named(kind, "bmcp_box_echo")
        answer = await home.request(kind, streamed=streamed, tools=[own])
        assert answer.status == 200
        assert b"bmcp_box_echo" in answer.body
        (usage,) = (await home.record()).facts.tool_usages
        assert (usage.tool, usage.injected, usage.server, usage.error) == ("bmcp_box_echo", False, None, None)
        assert server.calls == []
