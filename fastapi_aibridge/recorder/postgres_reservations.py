"""Reservations and settlements in PostgreSQL: arguments and result of the function that the migrations define.

The function locks the counters in a fixed order, settles ended interceptions, then makes all reservations together or,
if they do not fit, one by one. A batch's statement calls it, so there is one round trip and one commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .batch import Batch
from .reservations import Counted, Outcome

ARGUMENTS = ("text", "text[]", "bigint[]", "bigint[]", "text[]", "bigint[]", "bigint[]", "integer[]", "bigint[]",
             "bigint[]")  # fmt: skip
"""The SQL types of `arguments`."""


def accounted(first: int) -> str:
    """Return the SQL that calls the function; `first` is the number of its first parameter."""
    places = ", ".join(f"${place}::{kind}" for place, kind in enumerate(ARGUMENTS, first))
    return f"SELECT * FROM aibridge_account({places})"  # noqa: S608


def arguments(batch: Batch) -> Sequence[Any]:
    asked = [one for _, one in batch.reservations]
    named = [(place, *limit) for place, one in enumerate(asked, 1) for limit in one.limits]
    return (
        batch.recorder_id,
        [interception_id for interception_id, _ in batch.settled],
        [cost for _, cost in batch.settled],
        [number for number, _ in batch.reservations],
        [one.interception_id for one in asked],
        [one.estimate for one in asked],
        [one.spent for one in asked],
        *([row[column] for row in named] for column in range(3)),
    )


def outcome_of(rows: Iterable[Sequence[Any]]) -> Outcome:
    outcome = Outcome()
    for refused, counter, spent, reserved in rows:
        if refused is None:
            outcome.counters[counter] = Counted(spent, reserved)
        else:
            outcome.refused[refused] = counter
    return outcome
