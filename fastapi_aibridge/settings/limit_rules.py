"""One rule of `LIMITS__RULES`: whom it limits, to which amounts, in which window."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .values import Count, PositiveSeconds

MAX_RULES = 500
"""Rules in the settings. A request is checked only against those that an index finds for it."""
_LARGEST = 10**12
LONGEST_WINDOW = 31 * 86400.0
"""Seconds."""

Amount = Annotated[Count, Field(ge=1, le=_LARGEST)]
Pattern = Annotated[str, Field(min_length=1, max_length=512)]
"""A shell pattern: `*` for any text, `?` for one character, `[...]` for one of several."""


class LimitRule(BaseModel):
    """A limit of `requests`, `tokens` and `concurrent` requests in a `window`, for those that `scope` and `id` name.

    `initiator`: the one with this id, with a count of its own. `default`: each initiator that no `initiator` rule
    limits in the same respect, each with a count of its own. `group`, `provider`: those that match the pattern, each
    with a single count for all its members or callers. `model`: all models that match, with a single count, because
    clients choose the names. `provider` and `model` beside another scope narrow the rule to such requests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    scope: Literal["initiator", "default", "group", "provider", "model"]
    id: Pattern | None = None
    provider: Pattern | None = None
    model: Pattern | None = None
    requests: Amount | None = None
    tokens: Amount | None = None
    """Tokens of input, cache writes and output."""
    concurrent: Amount | None = None
    window: Annotated[PositiveSeconds, Field(ge=0.1, le=LONGEST_WINDOW)] = 60.0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.scope == "default" and self.id is not None:
            raise ValueError("a rule of scope 'default' has no id: it is for every initiator without a rule of its own")
        if self.scope != "default" and self.id is None:
            raise ValueError(f"a rule of scope {self.scope!r} needs an id: whose limit it is")
        if self.scope in ("provider", "model") and getattr(self, self.scope) is not None:
            raise ValueError(f"a rule of scope {self.scope!r} says in id which {self.scope} it is for, not twice")
        if self.requests is self.tokens is self.concurrent is None:
            raise ValueError("a rule needs a number: of requests, tokens or concurrent, or several of these")
        if "window" in self.model_fields_set and self.requests is self.tokens is None:
            raise ValueError("a rule of concurrent requests has no window")
        return self
