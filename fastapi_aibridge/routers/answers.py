"""Models of the admin routes' responses, for OpenAPI: most routes write JSON themselves, which is faster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..cluster.client_key import ClientKey
from ..cluster.worker import Worker, WorkersOutcome
from ..recorder import Interception, Prompt, Status, Thought, ToolUsage


class _Answer(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Page(_Answer):
    next_cursor: Annotated[str | None, Field(description="For the next page; null on the last one.")]


class WorkerItems(_Answer):
    items: list[Worker]


class ProviderKey(_Answer):
    hint: Annotated[str, Field(description="Enough to tell keys apart: `sk-...1234`.")]
    state: Literal["ready", "resting"]
    until: Annotated[datetime | None, Field(description="When the rest ends.")]


class Breaker(_Answer):
    """A circuit breaker that is not at rest."""

    route: str
    model: str
    initiator_id: Annotated[str | None, Field(description="Whose requests alone it concerns; null if it concerns all.")]
    state: Literal["closed", "open", "half_open"]
    failures: int
    until: Annotated[datetime | None, Field(description="When requests may be tried again.")]


class ProviderState(_Answer):
    name: str
    type: str
    status: Annotated[Literal["enabled", "disabled", "error"], Field(description="`error`: it cannot be used.")]
    base_url: str
    keys: list[ProviderKey]
    breakers: list[Breaker]
    managed: Annotated[bool, Field(description="Whether it is kept in the database, and can be changed here.")]
    error: str | None


class ProviderStates(_Answer):
    items: list[ProviderState]


class MessageUsage(_Answer):
    """Tokens of one upstream message. `input_tokens` excludes cached tokens, whatever the provider counts."""

    message_id: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    extra: dict[str, int]
    partial: bool
    service_tier: str | None
    cost_usd: float | None
    cost_estimated: bool
    price: Annotated[
        dict[str, Any] | None, Field(description="US dollars for a million tokens by kind, their source and date.")
    ]


@dataclass(slots=True, kw_only=True)
class InterceptionItem(Interception):
    """One recorded request to a model."""

    ended_at: datetime | None
    status: Status
    upstream_status: int | None
    error: str | None
    cost_usd: Annotated[float | None, Field(description="US dollars; null where the model has no price.")]
    cost_estimated: Annotated[bool, Field(description="Whether tokens were counted because no usage was reported.")]
    token_usages: list[MessageUsage]
    prompts: list[Prompt]
    tool_usages: list[ToolUsage]
    thoughts: list[Thought]


class InterceptionPage(_Page):
    items: list[InterceptionItem]


class UsageItem(_Answer):
    """One group. Of the members before `calls`, it has those that `by` names."""

    day: date | None = None
    initiator_id: str | None = None
    provider: str | None = None
    model: str | None = None
    client: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    group: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Annotated[float | None, Field(description="US dollars; null where no call has a price.")]


class UsageItems(_Answer):
    items: list[UsageItem]


class OwnBudget(_Answer):
    """A budget that applies to the caller. Amounts are in US dollars."""

    scope: Annotated[str, Field(description="`initiator`: the caller alone; `group`: all of the group together.")]
    id: str
    period: Literal["day", "week", "month"]
    usd: float
    spent_usd: float
    reserved_usd: Annotated[float, Field(description="For requests that run.")]
    left_usd: float
    resets_at: datetime
    fallback_model: str | None


class OwnUsage(_Answer):
    items: list[UsageItem]
    budgets: list[OwnBudget]


class BudgetItem(_Answer):
    """A budget. Amounts are in US dollars."""

    scope: Literal["initiator", "member", "group", "default", "everybody"]
    id: str
    usd: float
    period: Literal["day", "week", "month"]
    fallback_model: Annotated[str | None, Field(description="Asked for where the model asked for does not fit.")]
    source: Literal["settings", "admin"]
    spent_usd: Annotated[
        float | None,
        Field(
            description="Null where the budget holds for each of several callers on its own, or was changed while "
            "amounts cannot be read."
        ),
    ]
    reserved_usd: float | None
    resets_at: datetime


class BudgetItems(_Page):
    items: list[BudgetItem]


class AuditItem(_Answer):
    """One change."""

    at: datetime
    actor: Annotated[str, Field(description="Who made it.")]
    action: Annotated[str, Field(description="What was done: `client_key.create`.")]
    object: Annotated[str, Field(description="What was changed: `client_key/<id>`.")]
    before: Annotated[dict[str, Any] | None, Field(description="Null for what was made. Secrets are masked.")]
    after: Annotated[dict[str, Any] | None, Field(description="Null for what was removed. Secrets are masked.")]


class AuditItems(_Page):
    items: list[AuditItem]


class ManagedItem(_Answer):
    """A provider or an MCP server."""

    name: str
    settings: Annotated[dict[str, Any], Field(description="As they were written. Hints stand for secrets.")]
    etag: Annotated[str | None, Field(description="For `If-Match`; null where it comes from the settings.")]
    managed: Annotated[bool, Field(description="Whether it is in the database, and may be changed here.")]
    status: Literal["enabled", "disabled", "error"]
    error: Annotated[str | None, Field(description="Why it cannot be used.")]


class ChangedItem(ManagedItem):
    workers: WorkersOutcome


class ManagedItems(_Answer):
    items: list[ManagedItem]


class Erased(_Answer):
    interceptions: Annotated[int, Field(description="Of how many something was erased; running ones follow.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClientKey(ClientKey):
    key: Annotated[str, Field(description="The key itself. It is shown this once.")]


class ClientKeyItems(_Page):
    items: list[ClientKey]


class Problem(_Answer):
    """The reason why a request was refused."""

    detail: str


class InvalidParameter(_Answer):
    type: str
    loc: Annotated[list[str | int], Field(description='Where it is: `["query", "limit"]`.')]
    msg: str
    input: Any = None
    ctx: dict[str, Any] = {}


class Invalid(_Answer):
    """The parameters that are unknown or have no valid value; or, as text, the problem with the settings."""

    detail: list[InvalidParameter] | str
