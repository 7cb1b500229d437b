"""One open lane: reads chunks, gathers batches, has them delivered, until it is stopped, ended or lost.

Two tasks and one plain function: the reader waits for the source, the windows wait for time, and ``_dispatch`` starts
what is ready.  Nobody cancels a receive of a queue to close a window.
"""

from collections.abc import Sequence

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec.structs import replace

from esm.domain.batch import Batch, BatchLimits
from esm.domain.errors import EsmError, LaneFailed, LaneLost
from esm.domain.filtering import Filters
from esm.domain.holdings import Holdings, LaneProgress, QueueHoldings
from esm.domain.record import Chunk, LaneEnd, Mark, Record
from esm.domain.sublanes import KeyedLanes, SharedLanes, SubLanes
from esm.engine.buffer import Buffer
from esm.engine.deliver import RELEASE_SECONDS, Deliverer, Tools
from esm.engine.stopping import Stopping
from esm.ports import Lane

log = structlog.get_logger()

READ_SECONDS = 20.0
"""How long one read may wait for records: a long poll."""
LEAVE_SECONDS = 10.0
"""What a lane that failed may take to have everything durable, before it is given back to its feed."""
MOST_RECORDS = 10_000
"""What an ordered lane reads at once at most; the vendors' own limits are not above it."""
AHEAD_RECORDS, AHEAD_BYTES = 1_000, 2 * 1_048_576
"""What an ordered lane reads at once beyond its next batches: so many records, as soon as their size is known so many
bytes.  Enough for a call to cost little a record; little enough for many lanes whose target hangs to hold."""


class Pipeline:
    """One open lane.  ``stop`` lets what runs end; ``lose`` drops everything at once."""

    def __init__(self, tools: Tools, lane: Lane, buffer: Buffer) -> None:
        self._tools, self._lane, self._buffer = tools, lane, buffer
        self._plan, self._clock, self._metrics = tools.plan, tools.clock, tools.metrics
        self._holdings: Holdings = LaneProgress(lane.resumed) if tools.plan.ordered else QueueHoldings()
        self._sublanes = _sublanes(tools, lane)
        self._stopping = Stopping(tools.clock)
        self._deliverer = Deliverer(tools, lane, self._holdings, self._stopping, self._freed)
        self._scope = anyio.CancelScope()
        self._leaving = anyio.CancelScope()
        self._room_news = anyio.Event()
        self._window_news = anyio.Event()
        self._done = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._ended: LaneEnd | None = None
        self._marked: Mark | None = lane.resumed
        self._record_bytes = 0.0  # of the last read, on average
        self._reading = True
        self._deliveries = 0
        self._failure: EsmError | None = None
        self._read_up_to: float | None = None
        self.reads = 0
        """Replies of the source so far."""
        self.poll_ends: float | None = None
        """When the open read has come back at the latest (elapsed); None = none is open."""
        self.cut = False
        """Whether a stop ran out of time: something was cancelled."""

    # -- what others see

    @property
    def oldest(self) -> float | None:
        """Epoch seconds at which the oldest unsettled record arrived, as far as it is known; None = caught up."""
        return self._holdings.oldest or self._read_up_to

    @property
    def running(self) -> dict[str, float]:
        """Attempts under way, by request id: when each has timed out at the latest (elapsed)."""
        return self._deliverer.running

    def stop(self, deadline: float) -> None:
        """Stop softly; what still runs at ``deadline`` (elapsed) is cancelled."""
        self._stopping.ask(deadline)
        if self._stopping.deadline != float("inf"):
            left = self._stopping.deadline - self._clock.instant().elapsed
            self._end_by(anyio.current_time() + max(0.0, left))
        self._dispatch()

    def _end_by(self, moment: float) -> None:
        self._scope.deadline = min(self._scope.deadline, moment)
        self._leaving.deadline = min(self._leaving.deadline, moment)

    def lose(self, why: LaneLost) -> None:
        """The lane is somebody else's: end now and write nothing."""
        self._fail(why)
        self._scope.cancel()
        self._leaving.cancel()

    # -- its life

    async def run(self) -> None:
        """Return when the lane was stopped or is settled to its end, with everything durable.

        Raises LaneLost, LaneFailed (what was running has ended by then) and LeaseStoreFailed; anything else is a bug.
        """
        try:
            with self._scope:
                await self._work()
            if isinstance(self._failure, LaneLost):
                raise self._failure
            if self._failure is not None:  # what cannot be read may be impossible to settle, too
                self._leaving.deadline = min(self._leaving.deadline, anyio.current_time() + LEAVE_SECONDS)
            with self._leaving:
                await self._leave()
            if self._leaving.cancelled_caught and not isinstance(self._failure, LaneLost):
                log.warning("lane_not_flushed", mapping=self._plan.name, lane=self._lane.id.name, why="time ran out")
            if self._failure is not None:
                raise self._failure
        finally:
            self.cut = self._scope.cancelled_caught or self._leaving.cancelled_caught
            self._buffer.add(-self._holdings.size)
            self._metrics.lag_ends(self._lane.id.name)

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._read_all)
            if self._tools.window > 0:
                tasks.start_soon(self._watch_windows)
            try:
                await self._done.wait()
            except anyio.get_cancelled_exc_class():
                if unsent := self._sublanes.drop():
                    with anyio.move_on_after(RELEASE_SECONDS, shield=True):
                        await self._lane.release(unsent)
                raise
            finally:
                self._tasks = None
            tasks.cancel_scope.cancel()

    async def _leave(self) -> None:
        """Write the end of the lane, if it was reached, and wait until all is durable."""
        if self._ended is not None and self._holdings.count == 0:
            mark = self._holdings.mark() or Mark(None)
            await self._lane.settle((), replace(mark, ended=self._ended))
        await self._lane.flush()

    def _check_done(self) -> None:
        """Whether nothing is left to do: the reader has ended, and with it (or a stop) the last batch."""
        if not self._reading and not self._deliveries and not self._sublanes.waiting:
            self._done.set()

    def _fail(self, error: EsmError) -> None:
        if self._failure is None or isinstance(error, LaneLost):
            self._failure = error

    # -- reading

    async def _read_all(self) -> None:
        try:
            while self._ended is None and (room := await self._room()):
                self.poll_ends = self._clock.instant().elapsed + READ_SECONDS
                chunk = await self._read(*room)
                self.poll_ends = None
                if chunk is not None:
                    await self._took(chunk)
        except LaneLost as error:
            self.lose(error)
        except EsmError as error:
            self._metrics.polls["error"].inc()
            self._fail(error)
            self.stop(float("inf"))
        finally:
            self.poll_ends = None
        self._reading = False
        self._dispatch()

    async def _room(self) -> tuple[int, int] | None:
        """Records and bytes that may be read; waits while there is no room; None at a stop."""
        try:
            while not self._stopping.asked:
                limit = self._sublanes.room()
                size = self._buffer.room(self._holdings.count == 0)
                if limit and size:
                    return (self._ahead(limit) if self._plan.ordered else limit), size
                self._room_news = anyio.Event()
                if limit:
                    self._buffer.on_room(self._wake)
                await self._room_news.wait()
            return None
        finally:
            self._buffer.forget(self._wake)

    def _ahead(self, room: int) -> int:
        wanted = AHEAD_BYTES / self._record_bytes if self._record_bytes else AHEAD_RECORDS
        return min(MOST_RECORDS, max(room, int(wanted)))

    async def _read(self, limit: int, size: int) -> Chunk | None:
        """One reply of the source; None when a stop cut it short, which it never does to the receive of a queue.

        Whatever else leaves the lane's ``read`` is a failure of this lane alone.
        """
        try:
            if not self._plan.ordered:
                return await self._lane.read(limit, size, READ_SECONDS)
            with self._stopping.cut_short():
                return await self._lane.read(limit, size, READ_SECONDS)
            return None
        except EsmError:
            raise
        except Exception as error:
            where, kind = self._lane.id.name, type(error).__name__
            log.error("lane_read_failed", mapping=self._plan.name, lane=where, error=kind, exc_info=error)
            raise LaneFailed(
                f"Lane {self._lane.id} could not be read, by an error that nobody expected ({kind}); the log has the "
                "details.  It is tried again."
            ) from error

    async def _took(self, chunk: Chunk) -> None:
        count = len(chunk.records)
        self._metrics.polls["records" if count else "empty"].inc()
        self._metrics.polled.inc(count)
        self.reads += 1
        # What is still in the source is unsettled too: its age grows while nobody can read it.
        self._read_up_to = self._clock.instant().epoch - chunk.lag_seconds if chunk.lag_seconds else None
        before = self._holdings.size
        self._holdings.took(chunk)
        size = self._holdings.size - before
        self._buffer.add(size)
        self._record_bytes = size / count if count else self._record_bytes
        if chunk.lag_records is not None:
            self._metrics.lag_is(chunk.lag_records, self._lane.id.name)
        if chunk.gap is not None:
            self._lost_a_range(chunk)
        if chunk.ended is not None:
            self._ended = chunk.ended
        if not count:
            await self._pass()
        elif self._plan.filters is None:
            self._put(chunk.records)
        else:
            await self._filter(chunk.records, self._plan.filters)

    def _put(self, records: Sequence[Record]) -> None:
        if records:
            self._sublanes.put(records, self._clock.instant().elapsed)
            self._dispatch()

    async def _filter(self, records: Sequence[Record], filters: Filters) -> None:
        """Settle at once what no pattern lets through; it is in no batch and counts towards none."""
        passed, aside = filters.split(records, self._plan.kind.view)
        self._put(passed)  # first: should settling be cancelled, what waits here is given back
        if aside:
            if not self._lane.owned():
                raise LaneLost(f"Lane {self._lane.id} is no longer ours; what its filters set aside is left alone.")
            await self._deliverer.settle(aside, "filtered")
            self._wake()

    async def _pass(self) -> None:
        """Remember what was read past without any record: gaps, markers, continuation numbers."""
        mark = self._holdings.mark()
        if mark is not None and mark != self._marked:
            self._marked = mark
            await self._lane.settle((), mark)

    def _lost_a_range(self, chunk: Chunk) -> None:
        assert chunk.gap is not None, "called for a gap"
        self._metrics.expired.inc()
        after, before = (str(at[0]) if at else None for at in (chunk.gap.after, chunk.gap.before))
        log.error("position_expired", mapping=self._plan.name, lane=self._lane.id.name, after=after, before=before)

    # -- batches

    def _dispatch(self) -> None:
        """Start what is ready: after a read, after a batch ended, when a window's time comes, at a stop."""
        if self._tasks is None:
            return
        if self._stopping.asked and self._plan.ordered:
            self._sublanes.drop()
        # At a stop, and when nothing more will come, there is no window to wait for.
        last = self._stopping.asked or self._ended is not None
        now = float("inf") if last else self._clock.instant().elapsed
        for batch in self._sublanes.ready(now):
            self._deliveries += 1
            self._tasks.start_soon(self._deliver, batch)
        self._wake()

    async def _deliver(self, batch: Batch) -> None:
        try:
            await self._deliverer.deliver(batch)
        except LaneLost as error:
            self.lose(error)
        finally:
            self._deliveries -= 1
        self._sublanes.ended(batch, self._clock.instant().elapsed)
        self._dispatch()

    async def _watch_windows(self) -> None:
        while True:
            self._window_news = anyio.Event()
            due = self._sublanes.next_time()
            delay = float("inf") if due is None else due - self._clock.instant().elapsed
            with anyio.move_on_after(max(0.0, delay)):
                await self._window_news.wait()
            due = self._sublanes.next_time()
            if due is not None and due <= self._clock.instant().elapsed:
                self._dispatch()

    def _wake(self) -> None:
        """Something changed: there may be room, another window, or nothing left to do."""
        self._room_news.set()
        self._window_news.set()
        self._check_done()

    def _freed(self, size: int) -> None:
        self._buffer.add(-size)


def _sublanes(tools: Tools, lane: Lane) -> SubLanes:
    plan = tools.plan
    limits = BatchLimits(records=plan.batch_size, window=tools.window, overhead=plan.kind.overhead)
    if plan.ordered:
        return KeyedLanes(lane.id, limits, plan.batches)
    return SharedLanes(lane.id, limits, plan.batches)
