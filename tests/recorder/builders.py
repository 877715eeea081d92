"""Interceptions for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from fastapi_aibridge.recorder.records import (
    Ending,
    Facts,
    Interception,
    Prompt,
    Status,
    Thought,
    TokenUsage,
    ToolUsage,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def interception(**given: Any) -> Interception:
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "initiator_id": "alice",
        "api_key_id": "key-1",
        "provider": "openai",
        "provider_type": "openai",
        "route": "/v1/chat/completions",
        "model": "gpt-5",
        "streaming": True,
        "client": "Codex",
        "user_agent": "codex/1.0",
        "session_id": None,
        "correlating_tool_call_id": None,
        "credential_kind": "centralized",
        "credential_hint": "sk-...1234",
        "metadata": {},
        "started_at": datetime.now(UTC),
    }
    return Interception(**values | given)


def ending(**given: Any) -> Ending:
    values: dict[str, Any] = {"status": Status.COMPLETED, "ended_at": datetime.now(UTC), "upstream_status": 200}
    return Ending(**values | given)


def usage(tokens: int = 1, **given: Any) -> TokenUsage:
    values: dict[str, Any] = {
        "message_id": "m1",
        "input_tokens": tokens,
        "output_tokens": tokens * 2,
        "cache_read_tokens": tokens * 3,
        "cache_write_tokens": tokens * 4,
    }
    return TokenUsage(**values | given)


def full_facts() -> Facts:
    """One fact of each kind, with text that only content capture may keep."""
    return Facts(
        token_usages=[usage(5, extra={"reasoning": 7}, partial=True)],
        prompts=[Prompt(message_id="m1", text="the secret prompt")],
        tool_usages=[
            ToolUsage(
                message_id="m1",
                call_id="c1",
                tool="read_file",
                arguments={"path": "the secret path"},
                injected=True,
                server="files",
                error="the secret failure",
                duration=0.25,
            )
        ],
        thoughts=[Thought(source="thinking", text="the secret thought")],
    )


def at(minutes: float) -> datetime:
    """The moment this many minutes after noon of 1 March 2026."""
    return NOON + timedelta(minutes=minutes)
