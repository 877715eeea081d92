"""The JSON form of an interception in the admin routes and the export."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict

from ..budget import usd
from .records import InterceptionRecord, Status, TokenUsage

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DOCUMENTED = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)
"""The configuration of dataclasses that responses have: OpenAPI describes their members with the texts below them."""


def timestamp(moment: datetime) -> str:
    """Format as RFC 3339 in UTC: `2026-01-31T12:00:00.000000Z`. A naive datetime is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


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
        "token_usages": [_usage(usage) for usage in facts.token_usages],
        "prompts": [members(prompt) for prompt in facts.prompts],
        "tool_usages": [members(call) for call in facts.tool_usages],
        "thoughts": [members(thought) for thought in facts.thoughts],
    }


def _usage(usage: TokenUsage) -> dict[str, Any]:
    told = members(usage)
    told["cost_usd"] = usd(told.pop("cost"))
    return told


def members(value: DataclassInstance) -> dict[str, Any]:
    """Return the members of a dataclass, times in the form of `timestamp`."""
    given = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: timestamp(one) if isinstance(one, datetime) else one for name, one in given}
