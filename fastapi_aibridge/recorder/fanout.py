"""Recorders made of other recorders: several behind one, and one that is made at its first use."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from ..errors import ConfigurationError
from .content import ending_without_content, facts_without_content
from .owners import MemoryOwners, ObjectOwners
from .recorder import InterceptionQuery, InterceptionStore, Page, Recorder, ResumableRecorder
from .records import Ending, Facts, Interception, InterceptionRecord, Status
from .reservations import BudgetRecorder, Counters, Reservation
from .usage import UsageQuery, UsageRow, UsageStore

if TYPE_CHECKING:
    from .database import Database  # imports SQLAlchemy
    from .presence import Presence

log = logging.getLogger(__name__)

RecorderFactory = Callable[[], Awaitable[Recorder]]


class LazyRecorder:
    """A recorder that an async factory makes at the first use; after a failure, the next use tries again.

    If the made recorder is an async context manager, it is entered when it is made and exited with this one.
    """

    def __init__(self, factory: RecorderFactory) -> None:
        self._factory = factory
        self._recorder: Recorder | None = None
        self._making: asyncio.Task[Recorder] | None = None
        self._stack = AsyncExitStack()

    async def resolve(self) -> Recorder:
        """Return the recorder, making it first if necessary; concurrent callers wait for the same one."""
        if self._recorder is not None:
            return self._recorder
        if self._making is None:
            # A separate task, so that it continues if the first caller is cancelled.
            self._making = asyncio.create_task(self._make(), name="aibridge-recorder-factory")
        return await asyncio.shield(self._making)

    async def _make(self) -> Recorder:
        try:
            recorder = await self._factory()
            if isinstance(recorder, AbstractAsyncContextManager):
                await self._stack.enter_async_context(recorder)
            self._recorder = recorder
            return recorder
        finally:
            self._making = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._making is not None:
            await asyncio.wait([self._making])
        self._recorder = None
        await self._stack.aclose()

    async def start(self, interception: Interception) -> None:
        await (await self.resolve()).start(interception)

    async def observe(self, interception_id: str, facts: Facts) -> None:
        await (await self.resolve()).observe(interception_id, facts)

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        await (await self.resolve()).end(interception_id, ending, facts)


class FanoutRecorder:
    """A recorder that passes each record on to all of its recorders; each may also be given as an async factory.

    A start must succeed in all of them: if one fails, the interception is ended in the others at once. Reads go to the
    first recorder that can be read. Without `capture_content` no recorder receives prompts, tool arguments, thoughts or
    error texts.
    """

    def __init__(self, *recorders: Recorder | RecorderFactory, capture_content: bool = True) -> None:
        if not recorders:
            raise ConfigurationError("a fan-out needs at least one recorder")
        self._recorders: tuple[Recorder, ...] = tuple(
            recorder if isinstance(recorder, Recorder) else LazyRecorder(recorder) for recorder in recorders
        )
        self._capture_content = capture_content
        self._own_owners = MemoryOwners()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for recorder in self._recorders:
                if isinstance(recorder, AbstractAsyncContextManager):
                    await self._stack.enter_async_context(recorder)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(self, interception: Interception) -> None:
        """Record the start in all recorders. Raises the first error after all of them have finished."""
        await self._start(interception, self._recorders)

    async def _start(self, interception: Interception, recorders: Sequence[Recorder]) -> None:
        if len(recorders) == 1:
            await recorders[0].start(interception)
            return
        started = [asyncio.ensure_future(recorder.start(interception)) for recorder in recorders]
        try:
            await asyncio.gather(*started, return_exceptions=True)
        except asyncio.CancelledError:
            # `gather` has cancelled the starts that were still running; they clean up by themselves.
            await asyncio.wait(started)
            await self._undo(interception, recorders, started, Status.CANCELLED)
            raise
        for start in started:
            if start.cancelled() or start.exception() is not None:
                await self._undo(interception, recorders, started, Status.FAILED)
                await start

    @property
    def counters(self) -> Counters:
        """The counters of the first recorder that keeps any; raises `AttributeError` if none does."""
        return self._budget_recorder.counters

    @property
    def _budget_recorder(self) -> BudgetRecorder:
        for recorder in self._recorders:
            if isinstance(recorder, BudgetRecorder):
                return recorder
        raise AttributeError("none of the recorders keeps counters")

    async def start_within(self, interception: Interception, asked: Reservation) -> None:
        """Start in the recorder with the counters first, so that the others do not see a start that is over budget."""
        first: Recorder = self._budget_recorder  # type: ignore[assignment]
        await self._budget_recorder.start_within(interception, asked)
        others = [recorder for recorder in self._recorders if recorder is not first]
        if others:
            try:
                await self._start(interception, others)
            except BaseException as error:
                status = Status.FAILED if isinstance(error, Exception) else Status.CANCELLED
                await first.end(interception.id, Ending(status=status, ended_at=datetime.now(UTC)), Facts())
                raise

    async def reserve(self, asked: Reservation) -> None:
        await self._budget_recorder.reserve(asked)

    async def observe(self, interception_id: str, facts: Facts) -> None:
        if not self._capture_content:
            facts = facts_without_content(facts)
        await self._tell(lambda recorder: recorder.observe(interception_id, facts))

    async def end(self, interception_id: str, ending: Ending, facts: Facts) -> None:
        if not self._capture_content:
            ending, facts = ending_without_content(ending), facts_without_content(facts)
        await self._tell(lambda recorder: recorder.end(interception_id, ending, facts))

    async def list(self, query: InterceptionQuery) -> Page:
        """Return one page. Raises `InvalidCursor`, and `ConfigurationError` if none of the recorders can be read."""
        return await (await self._store()).list(query)

    async def get(self, interception_id: str) -> InterceptionRecord | None:
        """Return the record, or None. Raises `ConfigurationError` if none of the recorders can be read."""
        return await (await self._store()).get(interception_id)

    async def usage(self, query: UsageQuery) -> builtins.list[UsageRow]:
        """Aggregate usage. Raises `ConfigurationError` if the first readable recorder cannot, or if there is none."""
        store = await self._store()
        if not isinstance(store, UsageStore):
            raise ConfigurationError("the recorder that is read does not add up usage")
        return await store.usage(query)

    async def owner(self, provider: str, object_id: str) -> str | None:
        """Ask the first recorder that keeps owners; if none does, this process's own memory."""
        return await (await self._owners()).owner(provider, object_id)

    async def note(
        self, provider: str, object_id: str, initiator_id: str, kind: str, interception_id: str | None = None
    ) -> None:
        await (await self._owners()).note(provider, object_id, initiator_id, kind, interception_id)

    async def resume(self, provider: str, object_id: str, initiator_id: str) -> InterceptionRecord | None:
        """Resume only with a single recorder, because others would receive the end twice; otherwise return None."""
        made = [one async for one in self._made()]
        if len(made) == 1 and isinstance(made[0], ResumableRecorder):
            return await made[0].resume(provider, object_id, initiator_id)
        return None

    async def store(self) -> InterceptionStore | None:
        """Return the first recorder that can be read, or None."""
        async for candidate in self._made():
            store = await candidate.store() if isinstance(candidate, FanoutRecorder) else candidate
            if isinstance(store, InterceptionStore):
                return store
        return None

    @property
    def database(self) -> Database | None:
        """The database of the first recorder that has one; recorders made at their first use are not asked."""
        database: Database | None = self._of_first("database")
        return database

    @property
    def presence(self) -> Presence | None:
        """The presence of the first recorder that has one, like `database`."""
        presence: Presence | None = self._of_first("presence")
        return presence

    def _of_first(self, name: str) -> Any:
        found = (getattr(recorder, name, None) for recorder in self._recorders)
        return next((one for one in found if one is not None), None)

    async def _owners(self) -> ObjectOwners:
        async for candidate in self._made():
            if isinstance(candidate, ObjectOwners):
                return candidate
        return self._own_owners

    async def _made(self) -> AsyncIterator[object]:
        for recorder in self._recorders:
            yield await recorder.resolve() if isinstance(recorder, LazyRecorder) else recorder

    async def _store(self) -> InterceptionStore:
        store = await self.store()
        if store is None:
            raise ConfigurationError("none of the recorders can be read back")
        return store

    async def _tell(self, tell: Callable[[Recorder], Awaitable[None]]) -> None:
        """Call each recorder in turn, even after a failure or a cancellation; then raise the first of them."""
        failure: BaseException | None = None
        for recorder in self._recorders:
            try:
                await tell(recorder)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised after the other calls
                failure = failure or error
        if failure is not None:
            raise failure

    @staticmethod
    async def _undo(
        interception: Interception,
        recorders: Sequence[Recorder],
        started: Sequence[asyncio.Future[None]],
        status: Status,
    ) -> None:
        ending = Ending(status=status, ended_at=datetime.now(UTC))
        for recorder, start in zip(recorders, started, strict=True):
            if not start.cancelled() and start.exception() is None:
                try:
                    await recorder.end(interception.id, ending, Facts())
                except Exception as error:  # noqa: BLE001 - the start's own failure is the one to raise
                    log.warning("a recorder did not take an end: %s", type(error).__name__)
