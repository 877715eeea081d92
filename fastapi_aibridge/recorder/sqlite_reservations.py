"""Reservations and settlements in SQLite, within the transaction of their batch, which has the write lock."""

from __future__ import annotations

import json
import sqlite3

from .batch import Batch
from .reservations import Ledger, Outcome
from .schema import budget_counters, reservations

_LISTED = "(SELECT value FROM json_each(?))"
_ROW = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(4))
_HELD = f"SELECT interception_id, counter_id, spent, reserved FROM {reservations} WHERE interception_id IN {_LISTED}"  # noqa: S608
_COUNTERS = f"SELECT id, spent, reserved FROM {budget_counters} WHERE id IN {_LISTED}"  # noqa: S608
_COUNT = f"UPDATE {budget_counters} SET spent = ?, reserved = ? WHERE id = ?"  # noqa: S608
_RELEASE = f"DELETE FROM {reservations} WHERE interception_id IN {_LISTED}"  # noqa: S608
_HOLD = (
    f"INSERT INTO {reservations} (recorder_id, interception_id, counter_id, spent, reserved) "  # noqa: S608
    f"SELECT ?, {_ROW} FROM json_each(?) WHERE true "
    "ON CONFLICT (interception_id, counter_id) DO UPDATE "
    "SET recorder_id = excluded.recorder_id, spent = excluded.spent, reserved = excluded.reserved"
)


def account(connection: sqlite3.Connection, batch: Batch) -> Outcome:
    """Settle what has ended, then reserve in the order in which it was asked for."""
    ledger = _read(connection, batch)
    before = dict(ledger.counters)
    for interception_id, cost in batch.settled:
        ledger.settle(interception_id, cost)
    refused = {}
    held = []
    for number, asked in batch.reservations:
        full = ledger.reserve(asked)
        if full is None:
            held += [(asked.interception_id, counter, asked.spent, asked.estimate) for counter, _ in asked.limits]
        else:
            refused[number] = full
    changed = [(*amounts, counter) for counter, amounts in ledger.counters.items() if amounts != before[counter]]
    connection.executemany(_COUNT, changed)
    if batch.settled:
        connection.execute(_RELEASE, (json.dumps([interception_id for interception_id, _ in batch.settled]),))
    if held:
        connection.execute(_HOLD, (batch.recorder_id, json.dumps(held)))
    return Outcome(refused, ledger.counted())


def _read(connection: sqlite3.Connection, batch: Batch) -> Ledger:
    ids = [interception_id for interception_id, _ in batch.settled]
    # A start has nothing yet: a transaction that failed was rolled back.
    starts = {row[1] for row in batch.inbox}
    ids += [asked.interception_id for number, asked in batch.reservations if number not in starts]
    held: dict[str, dict[int, tuple[int, int]]] = {}
    for interception_id, counter, spent, reserved in connection.execute(_HELD, (json.dumps(ids),)) if ids else ():
        held.setdefault(interception_id, {})[counter] = (spent, reserved)
    counters = {counter for one in held.values() for counter in one}
    counters.update(counter for _, asked in batch.reservations for counter, _ in asked.limits)
    found = connection.execute(_COUNTERS, (json.dumps(list(counters)),)) if counters else ()
    return Ledger({counter: (spent, reserved) for counter, spent, reserved in found}, held)
