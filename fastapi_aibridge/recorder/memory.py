"""A recorder that holds the newest interceptions in memory, for tests, demos and apps without a database."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date

from .bounds import MAX_TEXT, Room, bounded, bounded_ending, bounded_facts, group_key, key_of, weight_of
from .columns import FACT_TYPES
from .content import ending_without_content, facts_without_content
from .cursor import decode_cursor, encode_cursor, to_microseconds
from .memory_counters import MemoryCounters
from .owners import MemoryOwners
from .recorder import HEAVIEST_PAGE, InterceptionFilter, InterceptionQuery, Page
from .records import Ending, Facts, Interception, InterceptionRecord
from .reservations import CounterKey, Reservation
from .rows import NO_TOKENS, add_tokens, cost_of
from .usage import Key, Sums, UsageBy, UsageQuery, UsageRow, add_sums, no_sums, usage_rows

_LISTS = (*FACT_TYPES, "objects")
"""The members of `Facts` that are kept."""


class MemoryRecorder(MemoryOwners):
    """A recorder in memory. Beyond `max_items` interceptions a new one displaces the oldest, running or not. Up to
    `max_text` bytes of text are kept of each.
    """

    def __init__(self, max_items: int = 1000, *, capture_content: bool = True, max_text: int = MAX_TEXT) -> None:
        if max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {max_items!r}")
        super().__init__()
        self._max_text = max_text
        self._rooms: dict[str, Room] = {}
        self._most_records = max_items
        self._capture_content = capture_content
        self._records: dict[str, InterceptionRecord] = {}
        self.counters = MemoryCounters(self._recorded, self._tokens)

    @property
    def records(self) -> builtins.list[InterceptionRecord]:
        """Copies of all records held, oldest first."""
        return [_copy(record) for record in self._records.values()]

    def clear(self) -> None:
        """Delete all ended interceptions; running ones stay."""
        self._records = {key: record for key, record in self._records.items() if record.ending is None}

    async def start(self, interception: Interception) -> None:
        self._records[interception.id] = InterceptionRecord(bounded(interception))
        self._rooms[interception.id] = Room(self._max_text)
        if len(self._records) > self._most_records:
            oldest = next(iter(self._records))
            gone = self._records.pop(oldest)
            self._rooms.pop(oldest, None)
            self.counters.settle(oldest, cost_of([usage.cost for usage in gone.facts.token_usages]) or 0)

    async def start_within(self, interception: Interception, asked: Reservation) -> None:
        """Reserve, then record the start. Raises `OverBudget`: then nothing is recorded."""
        self.counters.reserve(asked)
        await self.start(interception)

    async def reserve(self, asked: Reservation) -> None:
        """Reserve for a further call of a running interception. Raises `OverBudget`."""
        self.counters.reserve(asked)

    def _recorded(self, key: CounterKey) -> int:
        return sum(
            record.ending.cost or 0
            for record in self._records.values()
            if record.ending is not None
            and record.interception.started_at >= key.start
            and record.interception.credential_kind != "byok"
            and _concerns(key, record.interception)
        )

    def _tokens(self, provider: str, response_id: str) -> int:
        for record in self._records.values():
            made = (one.id for one in record.facts.objects)
            if record.interception.provider == provider and response_id in made:
                return sum(add_tokens(NO_TOKENS, record.facts.token_usages))
        return 0

    async def observe(self, interception_id: str, facts: Facts) -> None:
        record = self._records.get(interception_id)
        if record is not None and record.ending is None:
            await self._add(record, facts, self._rooms[interception_id])

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        record = self._records.get(interception_id)
        if record is not None and record.ending is None:
            await self._add(record, facts, self._rooms.pop(interception_id))
            if ending.credential_hint is not None:
                record.interception = replace(record.interception, credential_hint=ending.credential_hint)
            self.counters.settle(interception_id, ending.cost or 0)
            ending, is_cut = bounded_ending(ending)
            if is_cut:
                record.interception = replace(record.interception, truncated=True)
            record.ending = ending if self._capture_content else ending_without_content(ending)

    async def _add(self, record: InterceptionRecord, facts: Facts, room: Room) -> None:
        begun = record.interception
        for made in facts.objects:
            await self.note(begun.provider, made.id, begun.initiator_id, made.kind)
        if not self._capture_content:
            facts = facts_without_content(facts)
        facts, left_out = bounded_facts(facts, room)
        if left_out:
            record.interception = replace(begun, truncated=True)
        for name in _LISTS:
            getattr(record.facts, name).extend(getattr(facts, name))

    async def get(self, interception_id: str) -> InterceptionRecord | None:
        record = self._records.get(interception_id)
        return None if record is None else _copy(record)

    async def list(self, query: InterceptionQuery) -> Page:
        """Return one page, newest first. Raises `InvalidCursor`."""
        before = None if query.cursor is None else decode_cursor(query.cursor)
        places = sorted(map(_place, self._matching(query)), reverse=True)
        if before is not None:
            places = [place for place in places if place < before]
        page = places[:1]
        weight = sum(weight_of(self._records[interception_id].facts) for _, interception_id in page)
        for place in places[1 : max(query.limit, 1)]:
            weight += weight_of(self._records[place[1]].facts)
            if weight > HEAVIEST_PAGE:
                break
            page.append(place)
        next_cursor = encode_cursor(*page[-1]) if len(page) < len(places) else None
        return Page([_copy(self._records[interception_id]) for _, interception_id in page], next_cursor)

    async def usage(self, query: UsageQuery) -> builtins.list[UsageRow]:
        sums: dict[Key, Sums] = {}
        for record in self._matching(query):
            tokens = add_tokens(NO_TOKENS, record.facts.token_usages)
            counted = (1, *tokens, None if record.ending is None else record.ending.cost)
            for key in _keys(record.interception, query.by):
                add_sums(sums.setdefault(key, no_sums()), counted)
        return usage_rows(query, sums)

    def _matching(self, query: InterceptionFilter) -> builtins.list[InterceptionRecord]:
        after = None if query.started_after is None else to_microseconds(query.started_after)
        before = None if query.started_before is None else to_microseconds(query.started_before)
        wanted = [
            (name, key_of(name, value))
            for name in ("initiator_id", "provider", "model", "session_id")
            if (value := getattr(query, name)) is not None
        ]
        return [
            record
            for record in self._records.values()
            if all(getattr(record.interception, name) == value for name, value in wanted)
            and (after is None or to_microseconds(record.interception.started_at) >= after)
            and (before is None or to_microseconds(record.interception.started_at) < before)
        ]


def _keys(begun: Interception, by: Sequence[UsageBy]) -> Iterator[Key]:
    """Yield the keys of the query's groups that the interception counts for."""
    groups = set(map(group_key, begun.groups)) if UsageBy.GROUP in by else ()
    for group in groups or (None,):
        key: builtins.list[date | str | None] = []
        for each in by:
            if each is UsageBy.DAY:
                key.append(begun.started_at.astimezone(UTC).date())
            else:
                key.append(group if each is UsageBy.GROUP else getattr(begun, each.value))
        yield tuple(key)


def _concerns(key: CounterKey, begun: Interception) -> bool:
    if key.scope == "initiator":
        return key.id == begun.initiator_id
    return key.scope == "everybody" or key.id in begun.groups


def _place(record: InterceptionRecord) -> tuple[int, str]:
    return to_microseconds(record.interception.started_at), record.interception.id


def _copy(record: InterceptionRecord) -> InterceptionRecord:
    facts = Facts(**{name: getattr(record.facts, name)[:] for name in _LISTS})
    return InterceptionRecord(record.interception, facts, record.ending)
