"""Reservations and settlements in SQLite, within their batch's transaction, which holds the write lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

from .batch import Batch
from .reservations import Counted, Ledger, Outcome
from .schema import budget_counters, reservations

_HELD = f"SELECT interception_id, counter_id, spent, reserved FROM {reservations} WHERE interception_id IN "  # noqa: S608
_COUNTERS = f"SELECT id, spent, reserved FROM {budget_counters} WHERE id IN "  # noqa: S608
_COUNT = f"UPDATE {budget_counters} SET spent = ?, reserved = ? WHERE id = ?"  # noqa: S608
_RELEASE = f"DELETE FROM {reservations} WHERE interception_id IN "  # noqa: S608
_HOLD = f"INSERT INTO {reservations} (recorder_id, interception_id, counter_id, spent, reserved) VALUES "  # noqa: S608
_AGAIN = (
    " ON CONFLICT (interception_id, counter_id) DO UPDATE "
    "SET recorder_id = excluded.recorder_id, spent = excluded.spent, reserved = excluded.reserved"
)
_LARGEST = 64


def account(connection: sqlite3.Connection, batch: Batch) -> Outcome:
    """Settle ended interceptions, then make the reservations in their order. Returns the outcome."""
    settled = [interception_id for interception_id, _ in batch.settled]
    ledger = _read(connection, batch, settled)
    before = dict(ledger.counters)
    for interception_id, cost in batch.settled:
        ledger.settle(interception_id, cost)
    refused = {}
    held = []
    for number, asked in batch.reservations:
        full = ledger.reserve(asked)
        if full is None:
            held += [
                (batch.recorder_id, asked.interception_id, counter, asked.spent, asked.estimate)
                for counter, _ in asked.limits
            ]
        else:
            refused[number] = full
    changed = [(*amounts, counter) for counter, amounts in ledger.counters.items() if amounts != before[counter]]
    connection.executemany(_COUNT, changed)
    for some in pieces(settled):
        connection.execute(_RELEASE + _places(len(some)), some)
    for rows in pieces(held):
        connection.execute(_HOLD + _rows(len(rows)) + _AGAIN, list(chain.from_iterable(rows)))
    return Outcome(refused, ledger.counted())


def _read(connection: sqlite3.Connection, batch: Batch, settled: Sequence[str]) -> Ledger:
    # A new start holds nothing yet, because a failed transaction is rolled back.
    starts = {row[1] for row in batch.inbox}
    ids = [*settled, *(asked.interception_id for number, asked in batch.reservations if number not in starts)]
    held: dict[str, dict[int, Counted]] = {}
    for some in pieces(ids):
        for interception_id, counter, spent, reserved in connection.execute(_HELD + _places(len(some)), some):
            held.setdefault(interception_id, {})[counter] = Counted(spent, reserved)
    counters = {counter for one in held.values() for counter in one}
    counters.update([counter for _, asked in batch.reservations for counter, _ in asked.limits])
    found: dict[int, Counted] = {}
    for wanted in pieces(list(counters)):
        for counter, spent, reserved in connection.execute(_COUNTERS + _places(len(wanted)), wanted):
            found[counter] = Counted(spent, reserved)
    return Ledger(found, held)


def pieces(values: list[Any]) -> Iterator[list[Any]]:
    """Yield the values in pieces, one for each statement. A statement for many rows releases the GIL once, executemany
    once for each row, and must then win it back from the event loop each time. The sizes are powers of two, so that
    there are few different statements.
    """
    place, count = 0, len(values)
    while place < count:
        size = min(1 << ((count - place).bit_length() - 1), _LARGEST)
        yield values[place : place + size]
        place += size


@cache
def _places(number: int) -> str:
    return f"({', '.join('?' * number)})"


@cache
def _rows(number: int) -> str:
    return ", ".join(["(?, ?, ?, ?, ?)"] * number)
