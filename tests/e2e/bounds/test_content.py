"""The client, session and agents of a request, as they are recorded."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_aibridge import Interception

from ...upstream.app import running
from ...upstream.raw import Answer

pytestmark = pytest.mark.anyio

OK = Answer(200, b'{"id":"c1","object":"chat.completion","choices":[]}')
SESSION = "0f8b1c0e-8d4a-4f6e-9f57-3f4b6f0f6c11"
CLAUDE = {
    "authorization": "Bearer key-of-alice",
    "user-agent": "claude-cli/2.1.197 (external, cli)",
    "x-claude-code-agent-id": "agent-2",
    "x-claude-code-parent-agent-id": "agent-1",
}
MESSAGES = "/ai/openai/v1/messages"


async def recorded(**settings: Any) -> Interception:
    """Return the interception of a Claude Code request that has its session in the body."""
    async with running(OK, provider={"type": "anthropic"}, **settings) as app:
        body = {"model": "m", "max_tokens": 1, "messages": [], "metadata": {"user_id": f"user_x_session_{SESSION}"}}
        answer = await app.client.post(MESSAGES, headers=CLAUDE, json=body)
        assert answer.status_code == 200
        return (await app.record(answer)).interception


async def test_no_session_from_the_body() -> None:
    """A session id in the body counts as content: without captured content only headers supply the session."""
    assert (await recorded()).session_id == SESSION
    assert (await recorded(recorder={"capture_content": False})).session_id is None


async def test_agents_are_recorded() -> None:
    """The client, its agent and the parent agent are recorded."""
    found = await recorded()
    assert (found.client, found.agent_id, found.parent_agent_id) == ("Claude Code", "agent-2", "agent-1")
