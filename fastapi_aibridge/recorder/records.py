"""The records of an interception: its start, the facts seen in its messages, and its end.

Treat records as immutable. They are not frozen dataclasses, because creating those takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The client disconnected, or the request was cut off."""
    INTERRUPTED = "interrupted"
    """The process died before the end was written; another recorder, or the next start, noticed it."""


@dataclass(slots=True, kw_only=True)
class Interception:
    """The start of an interception: everything known before the upstream call."""

    id: str
    initiator_id: str
    api_key_id: str
    provider: str
    provider_type: str
    route: str
    model: str
    streaming: bool
    client: str
    user_agent: str | None
    session_id: str | None
    correlating_tool_call_id: str | None
    credential_kind: str
    credential_hint: str | None
    metadata: Mapping[str, Any]
    started_at: datetime
    agent_id: str | None = None
    """The agent within the client that sent the request, if the client reports it."""
    parent_agent_id: str | None = None
    truncated: bool = False
    """Whether texts of the start or the end were cut, or facts left out, to keep the record within its limits."""
    groups: tuple[str, ...] = ()
    """Names of the principal's groups."""
    upstream_model: str | None = None
    """The model requested upstream, if it differs from the model that the client requested."""


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Token counts of one upstream message. `input_tokens` excludes cached tokens, whatever the provider counts."""

    message_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    extra: Mapping[str, int] = field(default_factory=dict)
    partial: bool = False
    """Whether the message broke off or reported no usage, so that the counts may be incomplete."""
    service_tier: str | None = None
    """The service tier that the provider reports: `default`, `flex`, `priority`, `batch`."""
    cost: int | None = None
    """Micro-dollars; None if the model has no price or prices are off."""
    cost_estimated: bool = False
    """Whether the gateway counted tokens of the cost by itself, because the provider did not report them."""
    price: Mapping[str, Any] | None = None
    """US dollars per million tokens by kind, with the prices' `source` and the `date` on which they were in force."""


@dataclass(slots=True, kw_only=True)
class Prompt:
    message_id: str
    text: str
    source: str = "user"
    """`user`, or `agent` for text that the client added by itself."""
    truncated: bool = False
    """Whether the text was cut."""


@dataclass(slots=True, kw_only=True)
class ToolUsage:
    """A tool call of the model. `arguments` is the parsed value if they are JSON, else the raw text."""

    message_id: str
    call_id: str
    tool: str
    arguments: Any
    injected: bool = False
    server: str | None = None
    error: str | None = None
    duration: float | None = None
    """Seconds that the call of an injected tool took."""
    truncated: bool = False
    """Whether the arguments or the error were cut; cut arguments are the beginning of their JSON text."""


@dataclass(slots=True, kw_only=True)
class Thought:
    source: str
    """`thinking`, `reasoning_summary` or `commentary`."""
    text: str
    truncated: bool = False
    """Whether the text was cut."""


@dataclass(slots=True, kw_only=True)
class ProviderObject:
    """An object that the provider made and keeps, which later requests can name."""

    kind: str
    """`response`, `conversation`, `file`, `batch` and so on."""
    id: str


@dataclass(slots=True)
class Facts:
    """The facts seen in one or more upstream messages of an interception."""

    token_usages: list[TokenUsage] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    tool_usages: list[ToolUsage] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    objects: list[ProviderObject] = field(default_factory=list)
    """Objects made at the provider. Recorders keep their owners apart from the record (`ObjectOwners`)."""
    # The following members serve to compute the cost of the last message; they are not recorded.
    model: str = ""
    """The provider's name of the model that answered."""
    service_tier: str | None = None
    """The service tier that the message names, for a message that reports no usage."""
    parts: list[tuple[str, TokenUsage]] = field(default_factory=list)
    """The parts of the message, if reported: the model (empty for the requested one) and its usage."""
    server_calls: Mapping[str, int] = field(default_factory=dict)
    """Calls of the provider's own tools that its usage does not count, by their names in `TokenUsage.extra`."""
    usage_settled: bool = True
    """Whether the usage is final, even if the message broke off."""


@dataclass(slots=True, kw_only=True)
class Ending:
    status: Status
    ended_at: datetime
    upstream_status: int | None = None
    error: str | None = None
    credential_hint: str | None = None
    """The hint of the key that was used in the end, if known; the start may name another one."""
    cost: int | None = None
    """Micro-dollars of all messages together; None if one of them has no price."""
    cost_estimated: bool = False
    """Whether the cost of any message is estimated."""


@dataclass(slots=True)
class InterceptionRecord:
    """An interception as it is read back; `ending` is None while it runs."""

    interception: Interception
    facts: Facts = field(default_factory=Facts)
    ending: Ending | None = None
