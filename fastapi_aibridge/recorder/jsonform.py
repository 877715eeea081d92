"""The JSON form of an interception in the admin routes and the export."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .records import InterceptionRecord, Status


def timestamp(moment: datetime) -> str:
    """Format as RFC 3339 in UTC: `2026-01-31T12:00:00.000000Z`. A naive datetime is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def usd(cost: int | None) -> float | None:
    """Convert micro-dollars to dollars, exact to six decimals; None stays None."""
    return None if cost is None else cost / 1_000_000


def record_json(record: InterceptionRecord) -> dict[str, Any]:
    """Return the record as plain JSON values, with its members always in the same order."""
    begun, facts, ending = record.interception, record.facts, record.ending
    return {
        "id": begun.id,
        "initiator_id": begun.initiator_id,
        "api_key_id": begun.api_key_id,
        "provider": begun.provider,
        "provider_type": begun.provider_type,
        "route": begun.route,
        "model": begun.model,
        "upstream_model": begun.upstream_model,
        "streaming": begun.streaming,
        "client": begun.client,
        "user_agent": begun.user_agent,
        "session_id": begun.session_id,
        "agent_id": begun.agent_id,
        "parent_agent_id": begun.parent_agent_id,
        "correlating_tool_call_id": begun.correlating_tool_call_id,
        "credential_kind": begun.credential_kind,
        "credential_hint": begun.credential_hint,
        "metadata": dict(begun.metadata),
        "groups": list(begun.groups),
        "started_at": timestamp(begun.started_at),
        "ended_at": timestamp(ending.ended_at) if ending else None,
        "status": str(ending.status if ending else Status.RUNNING),
        "upstream_status": ending.upstream_status if ending else None,
        "error": ending.error if ending else None,
        "truncated": begun.truncated,
        "cost_usd": usd(ending.cost) if ending else None,
        "cost_estimated": ending.cost_estimated if ending else False,
        "token_usages": [
            {
                "message_id": usage.message_id,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_read_tokens": usage.cache_read_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
                "extra": dict(usage.extra),
                "partial": usage.partial,
                "service_tier": usage.service_tier,
                "cost_usd": usd(usage.cost),
                "cost_estimated": usage.cost_estimated,
                "price": None if usage.price is None else dict(usage.price),
            }
            for usage in facts.token_usages
        ],
        "prompts": [
            {
                "message_id": prompt.message_id,
                "text": prompt.text,
                "source": prompt.source,
                "truncated": prompt.truncated,
            }
            for prompt in facts.prompts
        ],
        "tool_usages": [
            {
                "message_id": call.message_id,
                "call_id": call.call_id,
                "tool": call.tool,
                "arguments": call.arguments,
                "injected": call.injected,
                "server": call.server,
                "error": call.error,
                "duration": call.duration,
                "truncated": call.truncated,
            }
            for call in facts.tool_usages
        ],
        "thoughts": [
            {"source": thought.source, "text": thought.text, "truncated": thought.truncated}
            for thought in facts.thoughts
        ],
    }
