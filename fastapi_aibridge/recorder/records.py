"""What is known of an interception: how it began, what was seen of it, how it ended.

Nobody changes a record once it is made. They are not frozen: that would make each of them three times as dear.
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
    """The client went away, or the request was cut."""
    INTERRUPTED = "interrupted"
    """The process died; found at the next start."""


@dataclass(slots=True, kw_only=True)
class Interception:
    """The start of an interception: all that is known before the upstream is called."""

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
    """The agent within the client that sent the request, where the client tells."""
    parent_agent_id: str | None = None
    truncated: bool = False
    """A text of the interception's own was cut, or facts were left out, to keep the record within its bounds."""
    groups: tuple[str, ...] = ()
    """Names of the groups that the principal belonged to."""
    upstream_model: str | None = None
    """The model that was asked for upstream, where that is another one than the client asked for."""


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one upstream message. `input_tokens` leaves cached tokens out, whatever the provider counts."""

    message_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    extra: Mapping[str, int] = field(default_factory=dict)
    partial: bool = False
    """The message broke off, or told no usage: these are the counts as far as they are known."""
    service_tier: str | None = None
    """Under which terms the message was made, as the provider reports it: `default`, `flex`, `priority`, `batch`."""
    cost: int | None = None
    """Micro-dollars; None where the model has no price, or nobody asked for one."""
    cost_estimated: bool = False
    """Whether tokens that the cost is for were counted by the gateway, since the provider told no usage."""
    price: Mapping[str, Any] | None = None
    """US dollars for a million tokens by kind, with the prices' `source` and the `date` on which they were in force."""


@dataclass(slots=True, kw_only=True)
class Prompt:
    message_id: str
    text: str
    source: str = "user"
    """`user`, or `agent` where the client added the text by itself."""
    truncated: bool = False
    """The text was cut."""


@dataclass(slots=True, kw_only=True)
class ToolUsage:
    """A tool call that the model made; `arguments` are parsed where they are JSON, else the raw text."""

    message_id: str
    call_id: str
    tool: str
    arguments: Any
    injected: bool = False
    server: str | None = None
    error: str | None = None
    duration: float | None = None
    """Seconds that an injected tool took."""
    truncated: bool = False
    """The arguments or the error were cut; cut arguments are the beginning of their JSON text."""


@dataclass(slots=True, kw_only=True)
class Thought:
    source: str
    """`thinking`, `reasoning_summary` or `commentary`."""
    text: str
    truncated: bool = False
    """The text was cut."""


@dataclass(slots=True, kw_only=True)
class ProviderObject:
    """Something that the provider made and keeps, which later requests can name."""

    kind: str
    """`response`, `conversation`, `file`, `batch` and so on."""
    id: str


@dataclass(slots=True)
class Facts:
    """What was seen of one or more upstream messages of an interception."""

    token_usages: list[TokenUsage] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    tool_usages: list[ToolUsage] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    objects: list[ProviderObject] = field(default_factory=list)
    """Made at the provider. Recorders keep who made them, apart from the record (`ObjectOwners`)."""
    # What follows is for the cost of the last message, and is not recorded.
    model: str = ""
    """The model that answered, as its provider names it."""
    parts: list[tuple[str, TokenUsage]] = field(default_factory=list)
    """What the message was put together from, where that is told: the model, empty for the one asked, and its usage."""
    server_calls: Mapping[str, int] = field(default_factory=dict)
    """Calls of the provider's own tools that its usage does not count, by the names that usages have for them."""
    usage_settled: bool = True
    """Whether the usage is the provider's last word, also where the message itself broke off."""


@dataclass(slots=True, kw_only=True)
class Ending:
    status: Status
    ended_at: datetime
    upstream_status: int | None = None
    error: str | None = None
    credential_hint: str | None = None
    """Of the key that paid in the end, where that is known: it may be another than the one it began with."""
    cost: int | None = None
    """Micro-dollars of all messages together; None where one of them has no price."""
    cost_estimated: bool = False
    """Whether the cost of one of them is estimated."""


@dataclass(slots=True)
class InterceptionRecord:
    """An interception as it is read back; `ending` is None while it runs."""

    interception: Interception
    facts: Facts = field(default_factory=Facts)
    ending: Ending | None = None
