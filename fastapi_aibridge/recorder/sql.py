"""The recorder that keeps interceptions in SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import uuid4

from ..errors import RecorderUnavailable
from .batch import Row
from .bounds import KIND_LIMIT, MAX_TEXT, OBJECT_ID_LIMIT, OWNER_LIMIT, Room, facts_body, key_of
from .columns import START_COLUMNS
from .committer import WriterStats
from .content import ending_without_content, facts_without_content
from .counters import SQLCounters
from .cursor import to_microseconds
from .daily import DAY, day_of, seal
from .database import unavailable
from .erasure import carry_out
from .owners import MemoryOwners
from .presence import Presence
from .reader import read_interrupted, read_owner
from .recorder import InterceptionQuery, Page
from .records import Ending, Facts, Interception, InterceptionRecord, Status
from .reservations import Reservation
from .rows import NO_TOKENS, Tokens, add_tokens, end_row, start_row
from .store import SQLStore
from .text import cut, cut_key, storable
from .usage import UsageQuery, UsageRow
from .writer import Writer

log = logging.getLogger(__name__)

DEFAULT_URL = "sqlite+aiosqlite:///aibridge.db"
DEFAULT_RETENTION = 60 * 86400.0

_BEAT = 5.0
"""Seconds between two heartbeats."""
_BEAT_AGAIN = 1.0
"""Seconds after a failed heartbeat until the next."""
_RESUMED = 2**40
"""The `part` of facts that follow an interruption; higher than that of all earlier facts."""
_STARTED_AT = START_COLUMNS.index("started_at")


@dataclass(slots=True, eq=False)
class _Running:
    """A running interception of this recorder."""

    id: str
    """The id as it is stored."""
    started_at: int
    """Microseconds since 1970."""
    provider: str
    initiator_id: str
    room: Room
    tokens: Tokens = NO_TOKENS
    truncated: bool = False
    """Whether facts were left out."""
    part: int | None = None
    """A fixed `part` for its facts, if several recorders may write the same ones."""


class SQLRecorder(SQLStore):
    """A recorder in the database that `url` names, used as a context: `async with SQLRecorder(url) as recorder`.

    A start is durable when `start` returns. Starts, facts and ends can be read at once from this recorder, and a moment
    later from others. While the database is unavailable, `start` raises `RecorderUnavailable`, at first after
    `start_timeout` seconds and then at once; facts and ends wait in memory, up to `max_pending` records, then `observe`
    and `end` wait too. On exit, waiting records are written, for `shutdown_timeout` seconds at most.

    Every `upkeep` seconds, interceptions older than `retention` seconds (0: keep all) are deleted, and past days are
    added up. `max_text` bytes of text are stored of each interception; longer texts are cut and marked `truncated`.
    Another recorder on the database counts as dead if its process is gone or its heartbeat is older than `lease`
    seconds; its running interceptions become interrupted. `clock` and `sleep` are for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        capture_content: bool = True,
        retention: float = DEFAULT_RETENTION,
        max_text: int = MAX_TEXT,
        migrate: bool = True,
        max_pending: int = 10_000,
        start_timeout: float = 3.0,
        open_timeout: float = 30.0,
        shutdown_timeout: float = 10.0,
        lease: float = 60.0,
        upkeep: float = 3600.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(url, create=True)
        self._capture_content = capture_content
        self._retention = retention
        self._max_text = max_text
        self._migrates = migrate
        self._max_pending = max_pending
        self._start_timeout = start_timeout
        self._open_timeout = open_timeout
        self._shutdown_timeout = shutdown_timeout
        self._lease = lease
        self._upkeep_interval = upkeep
        self._clock = clock
        self._sleep = sleep
        self._id = ""
        self._today = 0
        self._parts = itertools.count(1)
        self._running: dict[str, _Running] = {}
        self._owners = MemoryOwners()
        self._presence: Presence
        self._stats = WriterStats()
        self.counters = SQLCounters(self._database, self._flush)
        self._writer: Writer | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> Self:
        """Open, migrate and recover. Raises `RecorderUnavailable` if this fails for `open_timeout` seconds."""
        if self._writer is not None:
            raise RuntimeError("this recorder is open already; an app needs one of its own")
        self._database.open(create=True)
        self._id = str(uuid4())
        self._stats = WriterStats()
        self._presence = Presence(self._database, self._id, self._stats, lease=self._lease)
        self._turn_day()
        try:
            await self._prepare()
        except BaseException:
            await self._database.close()
            raise
        self._writer = Writer(
            self._database.sink(),
            self._id,
            self._stats,
            max_pending=self._max_pending,
            start_timeout=self._start_timeout,
            counters_changed=self.counters.tell,
        )
        self._tasks = (
            asyncio.create_task(self._stay_present(), name="aibridge-recorder-presence"),
            asyncio.create_task(self._upkeep_loop(), name="aibridge-recorder-upkeep"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        writer, self._writer, self._tasks = self._writer, None, ()
        if writer is not None:
            left = await writer.close(self._shutdown_timeout)
            if left:
                log.error("%d records were not written, the database stayed away", left)
            else:
                await self._leave()
        self._running.clear()
        await self._database.close()

    async def start(self, interception: Interception) -> None:
        """Write the start, durable on return. Raises `RecorderUnavailable`."""
        await self._start(interception, None)

    async def start_within(self, interception: Interception, asked: Reservation) -> None:
        """Like `start`, with a reservation. Also raises `OverBudget`: then nothing is written."""
        await self._start(interception, asked)

    async def _start(self, interception: Interception, asked: Reservation | None) -> None:
        if self._writer is None:
            raise RecorderUnavailable("the recorder is not open")
        row = start_row(interception, self._id)
        moment: int = row[_STARTED_AT]
        await self._writer.start(row[0], row, moment // DAY if moment < self._today else None, asked)
        self._running[interception.id] = _Running(
            row[0], moment, interception.provider, interception.initiator_id, Room(self._max_text)
        )

    async def observe(self, interception_id: str, facts: Facts) -> None:
        running = self._running.get(interception_id)
        if running is None or self._writer is None:
            log.warning("facts of an interception that does not run here: %s", interception_id)
            return
        running.tokens = add_tokens(running.tokens, facts.token_usages)
        row, objects = self._fact_rows(running, facts)
        if row is not None or objects:
            await self._writer.put(running.id, None, row, objects=objects)

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        running = self._running.pop(interception_id, None)
        if running is None or self._writer is None:
            log.warning("the end of an interception that does not run here: %s", interception_id)
            return
        if not self._capture_content:
            ending = ending_without_content(ending)
        row, objects = self._fact_rows(running, facts)
        tokens = add_tokens(running.tokens, facts.token_usages)
        end = end_row(running.id, ending, tokens, truncated=running.truncated)
        stale_day = running.started_at // DAY if running.started_at < self._today else None
        # The outcome of an interrupted interception may become known later, through `resume`.
        cost = None if ending.status is Status.INTERRUPTED else ending.cost or 0
        await self._writer.put(running.id, end, row, stale_day, objects, cost)

    async def reserve(self, asked: Reservation) -> None:
        """Reserve for a further call of a running interception. Raises `OverBudget` and `RecorderUnavailable`."""
        if self._writer is None:
            raise RecorderUnavailable("the recorder is not open")
        await self._writer.reserve(asked)

    async def owner(self, provider: str, object_id: str) -> str | None:
        """Return the initiator for whom the provider made the object, or None. Raises `RecorderUnavailable`."""
        object_id = cut_key(object_id, OBJECT_ID_LIMIT)
        known = self._owners.known(provider, object_id)
        if known is None and self._writer is not None:
            with unavailable("the owners of objects cannot be read"):
                async with self._database.reading() as connection:
                    known = await read_owner(connection, key_of("provider", provider), object_id)
            if known is not None:
                self._owners.remember(provider, object_id, known)
        return known

    async def note(
        self, provider: str, object_id: str, initiator_id: str, kind: str, interception_id: str | None = None
    ) -> None:
        """Store the owner: known to `owner` on return, durable a moment later."""
        row = self._object_row(provider, object_id, initiator_id, kind, interception_id)
        if row is not None and self._writer is not None:
            await self._writer.put("", None, None, objects=(row,))

    async def resume(self, provider: str, object_id: str, initiator_id: str) -> InterceptionRecord | None:
        """Resume an interrupted interception. Its earlier facts stay; those of the new end are stored once, even if
        several recorders write them.
        """
        if self._writer is None:
            return None
        names = key_of("provider", provider), cut_key(object_id, OBJECT_ID_LIMIT), key_of("initiator_id", initiator_id)
        await self._flush()
        with unavailable("the records cannot be read"):
            async with self._database.reading() as connection:
                found = await read_interrupted(connection, *names)
        if found is None:
            return None
        begun = found.interception
        moment = to_microseconds(begun.started_at)
        running = _Running(begun.id, moment, begun.provider, begun.initiator_id, Room(self._max_text), part=_RESUMED)
        self._running.setdefault(begun.id, running)
        self._writer.expect_end(begun.id)
        return found

    async def list(self, query: InterceptionQuery) -> Page:
        """Return a page of at most 1,000, with everything this recorder recorded before. Raises `InvalidCursor`."""
        await self._flush()
        return await super().list(query)

    async def get(self, interception_id: str) -> InterceptionRecord | None:
        await self._flush()
        return await super().get(interception_id)

    async def usage(self, query: UsageQuery) -> builtins.list[UsageRow]:
        await self._flush()
        return await super().usage(query)

    @property
    def presence(self) -> Presence:
        """The recorder's presence among the others; set while the recorder is open."""
        return self._presence

    @property
    def stats(self) -> WriterStats:
        """Counts of commits, rows and failures since the recorder was opened."""
        return self._stats

    @property
    def pending(self) -> int:
        """Rows that wait to be written to their tables."""
        return 0 if self._writer is None else self._writer.pending

    @property
    def available(self) -> bool:
        """Whether the recorder is open and its database accepted the last write, a heartbeat included."""
        return self._writer is not None and self._writer.available and self._presence.is_written

    async def run_upkeep(self) -> None:
        """Run one round of upkeep: delete interceptions older than the retention, add up past days, prune counters."""
        now = self._clock()
        if self._retention > 0:
            count = await self.prune(now - timedelta(seconds=self._retention))
            if count:
                log.info("%d interceptions were older than the retention and are deleted", count)
        await seal(self._database, now)
        await self.counters.prune(now)

    def _fact_rows(self, running: _Running, facts: Facts) -> tuple[Row | None, Sequence[Row]]:
        """Return the row of the facts (None if nothing is stored) and the rows of new objects among them."""
        objects: Sequence[Row] = ()
        if facts.objects:
            rows = [
                self._object_row(running.provider, made.id, running.initiator_id, made.kind, running.id)
                for made in facts.objects
            ]
            objects = [row for row in rows if row is not None]
        body, left_out = facts_body(facts if self._capture_content else facts_without_content(facts), running.room)
        running.truncated = running.truncated or left_out
        part = next(self._parts) if running.part is None else running.part
        return None if body is None else (running.id, part, body), objects

    def _object_row(
        self, provider: str, object_id: str, initiator_id: str, kind: str, interception_id: str | None
    ) -> Row | None:
        """Return the values of `OBJECT_COLUMNS`; None if the object's owner is already known."""
        object_id, initiator_id = cut_key(object_id, OBJECT_ID_LIMIT), cut_key(initiator_id, OWNER_LIMIT)
        if not self._owners.remember(provider, object_id, initiator_id):
            return None
        return (
            key_of("provider", provider),
            object_id,
            cut(storable(kind), KIND_LIMIT),
            initiator_id,
            interception_id and key_of("id", interception_id),
            to_microseconds(self._clock()),
        )

    async def _flush(self) -> None:
        if self._writer is not None:
            await self._writer.flush()

    def _turn_day(self) -> None:
        self._today = day_of(to_microseconds(self._clock())) * DAY

    async def _prepare(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._open_timeout
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    if self._migrates:
                        await self.migrate()
                    await self._presence.beat()
                    await self._presence.recover()
            except Exception as error:  # noqa: BLE001 - whatever the driver raises
                if asyncio.get_running_loop().time() + 0.25 >= deadline:
                    # The driver's traceback adds a hundred lines and no information.
                    raise RecorderUnavailable(self._database.unusable(error)) from None
                await asyncio.sleep(0.25)
            else:
                return

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(self._shutdown_timeout):
                await self._presence.interrupt_own()
                await self._presence.leave()
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            log.warning("the recorder could not sign off from its database: %s", type(error).__name__)

    async def _stay_present(self) -> None:
        while True:
            await self._sleep(min(self._lease / 4, _BEAT if self._presence.is_written else _BEAT_AGAIN))
            self._turn_day()
            try:
                async with asyncio.timeout(min(self._lease, 2 * _BEAT)):
                    await self._presence.beat()
                    await self._presence.recover()
                    await carry_out(self._database)
            except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                log.warning("the recorder's heartbeat failed: %s", type(error).__name__)

    async def _upkeep_loop(self) -> None:
        while True:
            try:
                await self.run_upkeep()
            except Exception as error:  # noqa: BLE001 - drivers have errors of their own
                log.warning("the upkeep of the records failed: %s", type(error).__name__)
            await self._sleep(self._upkeep_interval)
