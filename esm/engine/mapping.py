"""One mapping: reaches its source and target, opens and closes a pipeline for each lane, and never gives up."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import cast

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct

from esm.domain.delivery import Chance
from esm.domain.errors import EsmError, LaneLost, NotReady
from esm.domain.record import LaneId
from esm.domain.retry import Backoff
from esm.domain.visibility import queue_timing
from esm.engine.buffer import Buffer
from esm.engine.deliver import Tools
from esm.engine.pipeline import Pipeline
from esm.engine.plan import Plan
from esm.engine.slots import Slots
from esm.engine.status import MappingStatus
from esm.ports import AttemptLimits, Clock, Gone, Granted, Lane, LaneFeed, Leaving
from esm.telemetry.metrics import MappingMetrics

log = structlog.get_logger()

TRY_AGAIN = Backoff(base=1, cap=60)
"""While source or target are not as the mapping needs them, or after an error that nobody expected."""
STEADY_SECONDS = 300.0
"""A mapping that ran for so long has not failed in a row."""
END_SECONDS = 5.0
"""What lanes of a session that cannot go on may take beyond their longest attempt."""
SAY_AGAIN_SECONDS = 300.0
"""A sentence that was logged is logged again after so long."""


class _OpenLane:
    """A lane from its grant on: its pipeline once it is open, its scope while it opens."""

    def __init__(self, feed: LaneFeed) -> None:
        self.feed = feed
        self.opening = anyio.CancelScope()
        self.pipeline: Pipeline | None = None

    def stop(self, deadline: float) -> None:
        if self.pipeline is None:
            self.opening.cancel()
        else:
            self.pipeline.stop(deadline)

    def lose(self, lane: LaneId) -> None:
        if self.pipeline is None:
            self.opening.cancel()
        else:
            self.pipeline.lose(LaneLost(f"Lane {lane} belongs to another worker now."))


class _Trouble(Struct, frozen=True):
    """Why a lane was closed that is to be read again."""

    why: str
    oldest: float | None
    """Epoch seconds at which its oldest unsettled record arrived."""


class Mapping:
    """Runs one plan until it is stopped; an error of it touches no other mapping."""

    def __init__(
        self, plan: Plan, slots: Slots, buffer: Buffer, clock: Clock, chance: Chance, metrics: MappingMetrics
    ) -> None:
        self.plan = plan
        self._slots, self._buffer, self._clock, self._chance, self._metrics = slots, buffer, clock, chance, metrics
        self._lanes: dict[LaneId, _OpenLane] = {}
        self._session = anyio.CancelScope()
        self._connected = False
        self._stop = anyio.Event()
        self._over = anyio.Event()
        """Of the session: a stop was asked for, or it cannot go on."""
        self._failure: Exception | None = None
        self._deadline = float("inf")
        self._changed = anyio.Event()
        self._state = "starting"
        self._why: str | None = plan.waits_for or "It has not reached its source and its target yet."
        self._said: tuple[str, float] = ("", float("-inf"))
        self.cut = False
        """Whether a stop ran out of time: something was cancelled."""
        self.seconds: float | None = None
        """How long an attempt may take; None until the target was asked."""
        self._troubles: dict[LaneId, _Trouble] = {}
        metrics.age_is(self._age)

    # -- what others see

    def status(self) -> MappingStatus:
        """How it is doing now."""
        lanes = len(self._pipelines())
        source = f"{self.plan.source_kind} {self.plan.source_name}"
        why = self._why or self._trouble()
        return MappingStatus(self.plan.name, source, self._state, why is None, why, lanes)

    def _trouble(self) -> str | None:
        """Why a lane that was closed is not read again yet."""
        return next((trouble.why for trouble in self._unread()), None)

    def _unread(self) -> Sequence["_Trouble"]:
        """What keeps lanes closed; a lane that is read again is in no trouble."""
        for lane in self._lanes.keys() & self._troubles.keys():
            pipeline = self._lanes[lane].pipeline
            if pipeline is not None and pipeline.reads:
                del self._troubles[lane]
        return list(self._troubles.values())

    def open_polls(self) -> Sequence[float]:
        """When the reads that a stop lets end have come back at the latest (elapsed)."""
        if self.plan.ordered:
            return ()
        return [lane.poll_ends for lane in self._pipelines() if lane.poll_ends is not None]

    def running(self) -> Sequence[float]:
        """When the attempts under way have timed out at the latest (elapsed)."""
        return [ends for lane in self._pipelines() for ends in lane.running.values()]

    def stop(self, deadline: float) -> None:
        """Stop softly; what still runs at ``deadline`` (elapsed) is cancelled."""
        self._deadline = min(self._deadline, deadline)
        self._state = "stopping"
        self._stop.set()
        self._over.set()
        if not self._connected:
            self._session.cancel()
        for lane in self._lanes.values():
            lane.stop(self._deadline)

    def _pipelines(self) -> list[Pipeline]:
        return [lane.pipeline for lane in self._lanes.values() if lane.pipeline is not None]

    def _age(self) -> float:
        now = self._clock.instant().epoch
        oldest = [*(lane.oldest for lane in self._pipelines()), *(trouble.oldest for trouble in self._unread())]
        return max([0.0, *(now - arrived for arrived in oldest if arrived is not None)])

    # -- its life

    async def run(self) -> None:
        """Run until stopped.  Nothing but cancellation comes out of here."""
        failures = 0
        while not self._stop.is_set():
            began = self._clock.instant().elapsed
            try:
                with anyio.CancelScope() as self._session:
                    await self._connect()
            except NotReady as error:
                self._not_ready(str(error))
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, other mappings go on
                if error is not self._failure:  # else it was told when the session began to end
                    self._failed(error)
            finally:
                self._connected = False
            failures = 1 if self._clock.instant().elapsed - began > STEADY_SECONDS else failures + 1
            await self._pause(TRY_AGAIN.delay(failures, self._chance.jitter))
        self._state, self._why = "stopped", "It was stopped."

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._stop.wait()

    def _not_ready(self, why: str) -> None:
        self._state = "not ready"
        self._why = why
        now = self._clock.instant().elapsed
        if why != self._said[0] or now - self._said[1] >= SAY_AGAIN_SECONDS:
            self._said = (why, now)
            log.warning("mapping_not_ready", mapping=self.plan.name, why=why)

    def _failed(self, error: Exception) -> None:
        expected = _expected(error)
        if expected is not None:
            self._not_ready(str(expected))
            return
        self._state = "not ready"
        self._why = f"An unexpected error ({_names(error)}) stopped it; it starts again. The log has the details."
        log.error("mapping_failed", mapping=self.plan.name, error=_names(error), exc_info=error)

    async def _connect(self) -> None:
        if self.plan.waits_for is not None:
            self._not_ready(self.plan.waits_for)
            await self._stop.wait()
            return
        async with self.plan.source.connect() as (feed, limits):
            tools = await self._tools(limits)
            if self._stop.is_set():
                return
            self._connected = True
            self._troubles.clear()
            self._over, self._failure = anyio.Event(), None
            self._state, self._why = "running", None
            if self._said[0]:
                log.info("mapping_ready", mapping=self.plan.name)
                self._said = ("", float("-inf"))
            await self._run_lanes(feed, tools)

    async def _tools(self, limits: AttemptLimits) -> Tools:
        """How long attempts and windows may take.  Raises NotReady."""
        plan = self.plan
        limit = await plan.target.time_limit()
        seconds, window, needed = limit.seconds, plan.window, 0.0
        if limits.visibility is not None:
            timing = queue_timing(limits.visibility, limit.seconds, limit.required, plan.window)
            if timing is None:
                raise NotReady(
                    f"Queue visibility timeout: {limits.visibility:g} seconds is less than Function timeout: "
                    f"{limit.required:g} seconds. Raise the queue's or shorten the target's."
                )
            seconds, window, needed = timing.seconds, timing.window, timing.needed
            if window < plan.window:
                log.warning(
                    "batching_window_shortened",
                    mapping=plan.name,
                    seconds=window,
                    why=f"messages are hidden for {limits.visibility:g} s and an attempt takes up to {seconds:g} s",
                )
        self.seconds = seconds
        return Tools(
            plan=plan,
            seconds=seconds,
            needed=needed,
            window=window,
            slots=self._slots,
            clock=self._clock,
            chance=self._chance,
            metrics=self._metrics,
        )

    # -- lanes

    async def _run_lanes(self, feed: LaneFeed, tools: Tools) -> None:
        """Follow the feed until a stop, then until every lane has ended.  Raises what the session failed by."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, feed, tools, tasks)
            await self._over.wait()
            while self._lanes:
                self._changed = anyio.Event()
                await self._changed.wait()
            tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    def _end_session(self, error: Exception) -> None:
        """Begin anew after what ``error`` was; other lanes' attempts may end first, or they would run twice at once."""
        self._failure = self._failure or error
        self._failed(error)
        self._over.set()
        deadline = self._clock.instant().elapsed + (self.seconds or 0.0) + END_SECONDS
        for lane in self._lanes.values():
            lane.stop(min(deadline, self._deadline))

    async def _follow(self, feed: LaneFeed, tools: Tools, tasks: TaskGroup) -> None:
        try:
            await self._obey(feed, tools, tasks)
        except Exception as error:  # noqa: BLE001 - the session's, and raised at its end
            self._end_session(error)

    async def _obey(self, feed: LaneFeed, tools: Tools, tasks: TaskGroup) -> None:
        while True:
            match await feed.change():
                case Granted(id=lane, lane=opens):
                    if not self._over.is_set():
                        self._lanes[lane] = open_lane = _OpenLane(feed)
                        tasks.start_soon(self._run_lane, lane, opens, open_lane, tools)
                case Leaving(id=lane, deadline=deadline):
                    self._troubles.pop(lane, None)
                    if lane in self._lanes:
                        self._lanes[lane].stop(deadline)
                    else:
                        await feed.left(lane)
                case Gone(id=lane):
                    self._troubles.pop(lane, None)
                    if lane in self._lanes:
                        self._lanes[lane].lose(lane)

    async def _run_lane(
        self, lane: LaneId, opens: AbstractAsyncContextManager[Lane], open_lane: _OpenLane, tools: Tools
    ) -> None:
        try:
            await self._work_lane(opens, open_lane, tools)
        except EsmError as error:
            self._troubles.pop(lane, None)
            if not isinstance(error, LaneLost):
                oldest = open_lane.pipeline.oldest if open_lane.pipeline else None
                self._troubles[lane] = _Trouble(str(error), oldest)
            log.warning("lane_closed", mapping=self.plan.name, lane=lane.name, why=str(error))
        except Exception as error:  # noqa: BLE001 - a bug of one lane: the session ends, its other attempts first
            self._end_session(error)
        finally:
            open_lane.pipeline = None
            self._metrics.lanes.set(len(self._pipelines()))
        await open_lane.feed.left(lane)
        if self._lanes.get(lane) is open_lane:
            del self._lanes[lane]
        self._changed.set()

    async def _work_lane(self, opens: AbstractAsyncContextManager[Lane], open_lane: _OpenLane, tools: Tools) -> None:
        with open_lane.opening:
            async with opens as opened:
                open_lane.pipeline = pipeline = Pipeline(tools, opened, self._buffer)
                self._metrics.lanes.set(len(self._pipelines()))
                try:
                    await pipeline.run()
                finally:
                    self.cut |= pipeline.cut and self._stop.is_set()


def _leaves(error: BaseException) -> Iterable[BaseException]:
    """The errors that a task group wrapped, however deep."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for each in group.exceptions for leaf in _leaves(each)]


def _expected(error: Exception) -> EsmError | None:
    """The first of ours, if all that went wrong was of our own making."""
    found = list(_leaves(error))
    ours = [each for each in found if isinstance(each, EsmError)]
    return ours[0] if len(ours) == len(found) else None


def _names(error: Exception) -> str:
    return ", ".join(sorted({type(each).__name__ for each in _leaves(error)}))
