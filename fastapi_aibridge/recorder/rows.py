"""Records as rows and back: what the tables hold for an interception, its end and its facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row

from .cursor import from_microseconds, to_microseconds
from .records import (
    Ending,
    Facts,
    Interception,
    InterceptionRecord,
    Prompt,
    Status,
    Thought,
    TokenUsage,
    ToolUsage,
)
from .schema import START_COLUMNS

Tokens = tuple[int, int, int, int]
"""Input, output, cache read, cache write."""

NO_TOKENS: Tokens = (0, 0, 0, 0)
_RUNNING = ("running", None, None, None, *NO_TOKENS)
"""The end's part of the row of an interception that goes on."""

_MAX = 2**63 - 1
_HINT = START_COLUMNS.index("credential_hint")
_START_DEFAULTS: dict[str, Any] = {"agent_id": None, "parent_agent_id": None, "truncated": False}
_T = TypeVar("_T")


def start_row(begun: Interception, recorder_id: str) -> tuple[Any, ...]:
    """The values of `START_COLUMNS`."""
    texts = (
        begun.initiator_id,
        begun.api_key_id,
        begun.provider,
        begun.provider_type,
        begun.route,
        begun.model,
        begun.client,
        begun.user_agent,
        begun.session_id,
        begun.correlating_tool_call_id,
        begun.credential_kind,
        begun.credential_hint,
        begun.agent_id,
        begun.parent_agent_id,
    )
    together = "".join(filter(None, texts))
    if not together.isascii() or "\0" in together:
        texts = tuple(map(storable, texts))  # type: ignore[assignment]
    initiator, key, provider, kind, route, model, client, agent, session, call, credential, hint, *agents = texts
    return (
        storable(begun.id),
        recorder_id,
        initiator,
        key,
        provider,
        kind,
        route,
        model,
        begun.streaming,
        client,
        agent,
        session,
        call,
        credential,
        hint,
        dump(begun.metadata) if begun.metadata else "{}",
        to_microseconds(begun.started_at),
        *agents,
        begun.truncated,
    )


def inbox_row(recorder_id: str, number: int, row: tuple[Any, ...]) -> tuple[str, int, str]:
    """The values of `INBOX_COLUMNS` for those of `START_COLUMNS`."""
    return recorder_id, number, dump(row)


def inbox_start(body: str) -> dict[str, Any]:
    """The values of `START_COLUMNS` by name; an older release wrote fewer of them, a newer one more."""
    return _START_DEFAULTS | dict(zip(START_COLUMNS, load(body), strict=False))


def end_row(interception_id: str, ending: Ending, tokens: Tokens) -> tuple[Any, ...]:
    """The values of `END_COLUMNS`."""
    status = ending.upstream_status
    return (
        storable(interception_id),
        str(ending.status),
        to_microseconds(ending.ended_at),
        status if status is None or 0 <= status < 2**31 else None,
        storable(ending.error),
        *tokens,
        storable(ending.credential_hint),
    )


def filed_row(start: tuple[Any, ...], end: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """The values of `FILED_COLUMNS` for those of `START_COLUMNS` and, once it has ended, of `END_COLUMNS`."""
    if end is None:
        return start + _RUNNING
    _, *state, hint = end
    if hint is not None and hint != start[_HINT]:
        start = (*start[:_HINT], hint, *start[_HINT + 1 :])
    return (*start, *state)


def add_tokens(tokens: Tokens, usages: Sequence[TokenUsage]) -> Tokens:
    """The sums with these usages added, held within what a column can hold."""
    if not usages:
        return tokens
    given, made, read, written = tokens
    for usage in usages:
        given += usage.input_tokens
        made += usage.output_tokens
        read += usage.cache_read_tokens
        written += usage.cache_write_tokens
    if max(given, made, read, written) > _MAX or min(given, made, read, written) < 0:
        return tuple(max(0, min(total, _MAX)) for total in (given, made, read, written))  # type: ignore[return-value]
    return given, made, read, written


def storable(value: _T) -> _T:
    """The text without what a database refuses: NUL, and surrogates that stand alone. Other values pass."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()  # type: ignore[return-value]


def dump(value: object) -> str:
    """JSON text of anything. What JSON cannot say is said as nearly as possible: a record is never lost over it."""
    try:
        return orjson.dumps(value, default=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        text = json.dumps(value, default=_plain, ensure_ascii=False)
        return text.encode("utf-8", "replace").decode().replace("\0", "")
    except (TypeError, ValueError, RecursionError):
        return "null"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
    return str(value)


def dump_facts(facts: Facts) -> str | None:
    """None where there is nothing to keep."""
    if not (facts.token_usages or facts.prompts or facts.tool_usages or facts.thoughts):
        return None
    body = dump(facts)
    if body != "null":
        return body
    # Arguments that no encoder takes (nested too deeply) are the only member that can be anything at all.
    return dump(
        Facts(
            token_usages=facts.token_usages,
            prompts=facts.prompts,
            tool_usages=[_with_text_arguments(usage) for usage in facts.tool_usages],
            thoughts=facts.thoughts,
        )
    )


def _with_text_arguments(usage: ToolUsage) -> ToolUsage:
    return replace(usage, arguments=dump(usage.arguments))


def load(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def load_facts(bodies: Sequence[str]) -> Facts:
    facts = Facts()
    for body in bodies:
        value = load(body) or {}
        facts.token_usages += _made(TokenUsage, value.get("token_usages", ()))
        facts.prompts += _made(Prompt, value.get("prompts", ()))
        facts.tool_usages += _made(ToolUsage, value.get("tool_usages", ()))
        facts.thoughts += _made(Thought, value.get("thoughts", ()))
    return facts


def _made(kind: type[_T], values: Sequence[dict[str, Any]]) -> list[_T]:
    # A newer release may have written members that this one does not know.
    names = kind.__match_args__ or kind.__dataclass_fields__  # type: ignore[attr-defined]
    return [kind(**{name: value[name] for name in names if name in value}) for value in values]


def record(row: Row[Any], bodies: Sequence[str]) -> InterceptionRecord:
    """The record of a row of the interceptions' table and its facts' bodies, oldest first."""
    value = row._mapping  # noqa: SLF001
    ending = None
    if value["status"] != "running":
        ending = Ending(
            status=Status(value["status"]),
            ended_at=from_microseconds(value["ended_at"]),
            upstream_status=value["upstream_status"],
            error=value["error"],
        )
    begun = Interception(
        id=value["id"],
        initiator_id=value["initiator_id"],
        api_key_id=value["api_key_id"],
        provider=value["provider"],
        provider_type=value["provider_type"],
        route=value["route"],
        model=value["model"],
        streaming=value["streaming"],
        client=value["client"],
        user_agent=value["user_agent"],
        session_id=value["session_id"],
        correlating_tool_call_id=value["correlating_tool_call_id"],
        credential_kind=value["credential_kind"],
        credential_hint=value["credential_hint"],
        metadata=load(value["metadata"]) or {},
        started_at=from_microseconds(value["started_at"]),
        agent_id=value["agent_id"],
        parent_agent_id=value["parent_agent_id"],
        truncated=value["truncated"],
    )
    return InterceptionRecord(begun, load_facts(bodies), ending)
