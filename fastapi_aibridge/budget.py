"""Budgets: whose spending is limited, to how much, in which period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, overload

MICRO = 1_000_000
"""Micro-dollars in a dollar."""
MAX_USD = 10**9
MAX_NAME = 512
"""Characters of an id or a model's name; as many as an initiator's id may have."""
SCOPES = ("initiator", "member", "group", "default", "everybody")
PERIODS = ("day", "week", "month")
_SINGLE = ("default", "everybody")
ANY = "*"
"""The id of budgets whose scope is `default` or `everybody`."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of `usd` US dollars in each `period`: `day`, `week` (from Monday) or `month`, in UTC. 0 blocks.

    `scope` and `id` say whose spending is limited: that of one `initiator`; of each `member` of a group separately; of
    a `group` as a whole; by `default`, of each initiator without an `initiator` or `member` budget of the same period;
    or of `everybody` together. A `Principal`'s budget without an id is the initiator's own. `fallback_model` is a
    cheaper model, used once the requested model no longer fits the budget.

    Raises `ValueError` for invalid values.
    """

    usd: float | int | Decimal | str
    period: str = "month"
    scope: str = "initiator"
    id: str = ""
    fallback_model: str | None = None

    def __post_init__(self) -> None:
        if self.period not in PERIODS:
            raise ValueError(f"period of a budget is one of {', '.join(PERIODS)}, not {self.period!r:.64}")
        if self.scope not in SCOPES:
            raise ValueError(f"scope of a budget is one of {', '.join(SCOPES)}, not {self.scope!r:.64}")
        object.__setattr__(self, "usd", _dollars(self.usd))
        if self.scope in _SINGLE:
            if self.id not in ("", ANY, self.scope):
                raise ValueError(f"a budget with the scope {self.scope!r} is for everybody and has no id")
            object.__setattr__(self, "id", ANY)
        for name in ("id", "fallback_model"):
            _check_name(name, getattr(self, name))
        if self.fallback_model == "":
            object.__setattr__(self, "fallback_model", None)

    @classmethod
    def of(cls, value: Budget | Mapping[str, Any]) -> Budget:
        """Return a budget as it is, or make one from a mapping of its members. Raises `ValueError`."""
        if isinstance(value, Budget):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"a budget is an object such as {EXAMPLE}, not {type(value).__name__}")  # noqa: TRY004
        names = {field.name for field in fields(cls)}
        if unknown := [str(name)[:64] for name in value if name not in names]:
            raise ValueError(f"a budget has no {unknown[0]!r}; it is an object such as {EXAMPLE}")
        if "usd" not in value:
            raise ValueError(f"a budget needs 'usd'; it is an object such as {EXAMPLE}")
        return cls(**value)

    @property
    def limit(self) -> int:
        """The amount in micro-dollars."""
        return int(Decimal(str(self.usd)) * MICRO)

    @property
    def key(self) -> tuple[str, str, str]:
        """The budget's identity: two budgets with the same key are one."""
        return self.scope, self.id, self.period


EXAMPLE = '{"scope": "initiator", "id": "alice", "usd": 20, "period": "month"}'


def _dollars(usd: object) -> Decimal:
    if isinstance(usd, bool) or not isinstance(usd, int | float | Decimal | str):
        raise ValueError(f"usd of a budget is a number, not {type(usd).__name__}")  # noqa: TRY004
    try:
        dollars = Decimal(str(usd)[:64])
    except InvalidOperation:
        raise ValueError("usd of a budget is a number of US dollars") from None
    if not dollars.is_finite() or not 0 <= dollars <= MAX_USD:
        raise ValueError(f"usd of a budget is between 0 and {MAX_USD}")
    if dollars != round(dollars, 6):
        raise ValueError("usd of a budget has six decimals at most")
    return dollars.normalize() + 0


def _check_name(name: str, value: object) -> None:
    if value is None and name == "fallback_model":
        return
    if not isinstance(value, str):
        raise ValueError(f"{name} of a budget is a text, not {type(value).__name__}")  # noqa: TRY004
    if not is_id(value):
        raise ValueError(f"{name} of a budget has more than {MAX_NAME} characters, or one that cannot be printed")


def is_id(text: str) -> bool:
    """Whether the text can be the id of a budget: short enough and printable."""
    return len(text) <= MAX_NAME and text.isprintable()


def period_start(period: str, moment: datetime) -> datetime:
    """Return the start, in UTC, of the period that contains the moment."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day
    return day - timedelta(days=day.weekday()) if period == "week" else day.replace(day=1)


def period_end(period: str, start: datetime) -> datetime:
    """Return the end of the period that began at `start`."""
    if period == "day":
        return start + timedelta(days=1)
    if period == "week":
        return start + timedelta(days=7)
    return (start + timedelta(days=32)).replace(day=1)


def dollars(amount: int) -> str:
    """Format micro-dollars for people: `20`, `16.20`, `0.012345`."""
    if not amount % MICRO:
        return str(amount // MICRO)
    text = f"{Decimal(amount) / MICRO:.6f}".rstrip("0")
    return text + "0" * max(0, 2 - len(text.partition(".")[2]))


@overload
def usd(amount: int) -> float: ...
@overload
def usd(amount: int | None) -> float | None: ...
def usd(amount: int | None) -> float | None:
    """Convert micro-dollars to dollars for JSON, with six decimals at most; None stays None."""
    return None if amount is None else round(amount / MICRO, 6)
