"""Side requests of an agent, which bring no tools, get none injected."""

from __future__ import annotations

import json

import pytest

from fastapi_aibridge.testing import Reply

from ...formats.rounds.driving import MESSAGES
from ...mcp.servers import ToolServer
from ..gateway import client
from ..gateway.client import KEY
from .harness import harness

pytestmark = pytest.mark.anyio
CLAUDE = "claude-cli/2.1.197 (external, cli)"


@pytest.mark.parametrize(
    ("agent", "members", "injected"),
    [
        (CLAUDE, {"system": "Write a title.", "tools": []}, False),
        (CLAUDE, {"system": "Write a title."}, False),
        (
            CLAUDE,
            {"system": "Work.", "tools": [{"name": "Read", "input_schema": {}}]},
            True,
        ),
        (CLAUDE, {}, True),
        ("Anthropic/Python 2.0.0", {"system": "Write a title."}, True),
    ],
)
async def test_what_gets_tools(server: ToolServer, agent: str, members: dict[str, object], injected: bool) -> None:
    """Clients that are no agents, and agents at work, get tools."""
    async with harness([Reply(text="Title")], {"box": server.url}) as home:
        body = MESSAGES.request(streamed=False, **members)
        await client.request(home.server.port, "POST", home.target(MESSAGES), body, {"user-agent": agent}, key=KEY)
        assert ("bmcp_" in json.dumps(home.upstream[0])) is injected
