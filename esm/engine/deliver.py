"""Performs the steps that domain/delivery.py decides for one batch: waits, attempts, discards."""

from collections.abc import Callable, Sequence

import anyio
import structlog
from msgspec import Struct

from esm.domain.batch import EVENT_BYTES, Batch
from esm.domain.delivery import Chance, Delivery, Discard, Invoke, Verdict, Wait
from esm.domain.discarded import Discarded
from esm.domain.errors import DestinationRejected, DestinationUnavailable, LaneLost
from esm.domain.holdings import Holdings
from esm.domain.outcome import Failed, Finishing, Outcome
from esm.domain.record import Record
from esm.domain.retry import Backoff
from esm.domain.tracing import trace_header
from esm.engine.plan import Plan
from esm.engine.slots import Slots
from esm.engine.stopping import Stopping
from esm.ports import Clock, Destination, Invocation, Lane
from esm.telemetry.metrics import MappingMetrics

log = structlog.get_logger()

RELEASE_SECONDS = 5.0
STORE_AGAIN = Backoff(base=0.5, cap=60)
"""Between tries of a destination that does not take a failure record."""


class Tools(Struct, frozen=True):
    """What the lanes of one mapping share."""

    plan: Plan
    seconds: float
    """Of an attempt."""
    needed: float
    """What a receipt must still live for an attempt to start; 0 without receipts."""
    window: float
    """Of gathering a batch, seconds."""
    slots: Slots
    clock: Clock
    chance: Chance
    metrics: MappingMetrics


class Deliverer:
    """Delivers the batches of one open lane; ``on_freed`` is told how many bytes need no more memory."""

    def __init__(
        self, tools: Tools, lane: Lane, holdings: Holdings, stopping: Stopping, on_freed: Callable[[int], None]
    ) -> None:
        self._tools, self._lane, self._holdings, self._stopping = tools, lane, holdings, stopping
        self._plan, self._clock, self._metrics = tools.plan, tools.clock, tools.metrics
        self._on_freed = on_freed
        self.running: dict[str, float] = {}
        """Attempts under way, by request id: when each has timed out at the latest (elapsed)."""

    async def deliver(self, batch: Batch) -> None:
        """Return once every record of ``batch`` is settled, left or (at a stop) given up.  Raises LaneLost."""
        machine = self._plan.new_delivery(batch.records, self._clock.instant())
        self._metrics.in_flight.inc()
        given_up: Sequence[Record] = ()
        try:
            while (step := machine.next_step(self._clock.instant())) is not None and self._may(step):
                match step:
                    case Wait():
                        await self._stopping.sleep_until(step.until)
                    case Invoke():
                        await self._attempt(machine, step)
                    case Discard():
                        await self._discard(machine, step)
            given_up = self._give_up(machine.pending)
            await self._lane.release(given_up)
        except anyio.get_cancelled_exc_class():
            given_up = given_up or self._give_up(self._idle(machine))
            with anyio.move_on_after(RELEASE_SECONDS, shield=True):
                await self._lane.release(given_up)
            raise
        finally:
            self._metrics.in_flight.dec()

    def _may(self, step: Wait | Invoke | Discard) -> bool:
        """At a soft stop what is not being invoked is dropped; a queue's message gets one attempt if time allows."""
        if not self._stopping.asked:
            return True
        if self._plan.ordered or not isinstance(step, Invoke):
            return False
        return self._clock.instant().elapsed + self._tools.seconds <= self._stopping.deadline

    def _idle(self, machine: Delivery) -> Sequence[Record]:
        """What no attempt holds: the rest stays with its visibility, since the target may still be at it."""
        step = machine.next_step(self._clock.instant())
        if not isinstance(step, Invoke) or step.request_id not in self.running:
            return machine.pending
        held = {record.at for record in step.records}
        return [record for record in machine.pending if record.at not in held]

    def _give_up(self, records: Sequence[Record]) -> Sequence[Record]:
        """What is to be released: messages go back to their queue; an ordered lane's source still has its records."""
        if self._plan.ordered:
            return ()
        self._forget(records)
        return records

    # -- attempts

    async def _attempt(self, machine: Delivery, step: Invoke) -> None:
        if not await self._slot():
            return
        try:
            verdict = await self._with_a_slot(machine, step)
        finally:
            self._tools.slots.give_back()
        if verdict is not None:
            await self._apply(verdict, step)

    async def _with_a_slot(self, machine: Delivery, step: Invoke) -> Verdict | None:
        """None: nothing was sent, since age or receipts ran out or a stop came while it queued for the slot."""
        if machine.next_step(self._clock.instant()) != step or not self._may(step):
            return None
        if not self._lane.owned():
            raise LaneLost(f"Lane {self._lane.id} is no longer ours; nothing more is sent from it.")
        usable = self._lane.usable(step.records, self._tools.needed)
        if len(usable) < len(step.records):
            gone = machine.on_gone(usable)
            self._log("receipts_ran_out", gone, request_id=step.request_id)
            self._forget(gone)
            return None
        return await self._invoke(machine, step)

    async def _slot(self) -> bool:
        """Take a slot; False when a stop cut the wait short, which it does not for the messages of a queue."""
        if not self._plan.ordered:
            await self._tools.slots.take()
            return True
        with self._stopping.cut_short():
            await self._tools.slots.take()
            return True
        return False

    async def _invoke(self, machine: Delivery, step: Invoke) -> Verdict:
        event = self._plan.kind.frame(self._lane.id, step.records)
        if len(event) > EVENT_BYTES:
            return machine.on_too_large(self._clock.instant())
        result = await self._send(event, step)
        if isinstance(result, Failed) and result.still_running is not None:
            await self._wait_for_handler(result.still_running, step)
        if not self._lane.owned():
            raise LaneLost(f"Lane {self._lane.id} was lost during an attempt; its result is ignored.")
        return machine.on_result(result, self._clock.instant())

    async def _send(self, event: bytes, step: Invoke) -> Outcome:
        began = self._clock.instant()
        seconds = self._tools.seconds
        trace = trace_header(began.epoch, self._tools.chance.new_id())
        self.running[step.request_id] = began.elapsed + seconds  # stays there when cancelled: the target may be at it
        result = await self._plan.target.invoke(Invocation(event, step.request_id, seconds, trace))
        del self.running[step.request_id]
        metrics = self._metrics
        metrics.duration.observe(max(0.0, self._clock.instant().elapsed - began.elapsed))
        metrics.batch_records.observe(len(step.records))
        metrics.batch_bytes.observe(len(event))
        return result

    async def _wait_for_handler(self, handler: Finishing, step: Invoke) -> None:
        """A timed-out handler that goes on keeps slot and key: one key is never in two attempts at once."""
        self._log("handler_still_running", step.records, request_id=step.request_id)
        self.running[step.request_id] = float("inf")  # stays there when cancelled, as in `_send`
        await handler.wait()
        del self.running[step.request_id]

    async def _apply(self, verdict: Verdict, step: Invoke) -> None:
        self._metrics.invocations[verdict.how].inc()
        if verdict.error is not None:
            fields = {"outcome": verdict.how, "error": verdict.error, "request_id": step.request_id}
            self._log("attempt_failed", step.records, **fields)
        if verdict.left:
            self._forget(verdict.left)
        if verdict.delivered:
            await self.settle(verdict.delivered, "delivered")

    async def settle(self, records: Sequence[Record], outcome: str) -> None:
        """``records`` need no more work; ``outcome`` is the label of `esm_records_settled_total`.  Raises LaneLost."""
        self._forget(records)
        await self._lane.settle(records, self._holdings.mark())
        self._metrics.settled[outcome].inc(len(records))

    def _forget(self, records: Sequence[Record]) -> None:
        """They need no more memory: settled, or left to whoever has them."""
        if records:
            before = self._holdings.size
            self._holdings.settled(records)
            self._on_freed(before - self._holdings.size)

    # -- discards

    async def _discard(self, machine: Delivery, step: Discard) -> None:
        """Store the failure record, again and again unless told to drop; only then are the records settled."""
        destination = self._plan.destination
        outcome = "none"
        if destination is not None:
            stored = await self._store(destination, self._failure_record(step))
            if stored is None:
                return  # a stop came first: whoever reads the records next finds the same end
            outcome = "stored" if stored else "dropped"
        if not self._lane.owned():
            raise LaneLost(f"Lane {self._lane.id} was lost while a failure record was stored.")
        machine.on_discarded()
        fields = {"reason": str(step.reason), "invocations": step.invoke_count, "request_id": step.request_id}
        self._log("records_discarded", step.records, destination=outcome, **fields)
        await self.settle(step.records, "discarded")

    def _failure_record(self, step: Discard) -> Discarded:
        return Discarded(
            id=step.request_id,
            mapping_uuid=self._plan.uuid,
            lane=self._lane.id,
            function_arn=self._plan.target.function_arn,
            reason=step.reason,
            invoke_count=step.invoke_count,
            response=step.response,
            records=step.records,
            at=self._clock.instant().epoch,
            batch_info=self._plan.kind.batch_info(self._lane.id, step.records),
        )

    async def _store(self, destination: Destination, what: Discarded) -> bool | None:
        """True = stored, False = dropped as configured, None = cut short by a stop."""
        tries = 0
        while True:
            try:
                await destination.store(what)
            except (DestinationUnavailable, DestinationRejected) as error:
                tries += 1
                kind = "rejected" if isinstance(error, DestinationRejected) else "unavailable"
                self._metrics.destination[kind].inc()
                if tries == 1 or tries % 10 == 0:
                    self._log("failure_record_not_stored", what.records, error=str(error), tries=tries)
            else:
                self._metrics.destination["stored"].inc()
                return True
            if self._plan.drops:
                self._metrics.destination["dropped"].inc()
                return False
            delay = STORE_AGAIN.delay(tries, self._tools.chance.jitter)
            await self._stopping.sleep_until(self._clock.instant().elapsed + delay)
            if self._stopping.asked:
                return None
            if not self._lane.owned():
                raise LaneLost(f"Lane {self._lane.id} was lost while a failure record waited for its destination.")

    def _log(self, event: str, records: Sequence[Record], **fields: object) -> None:
        log.warning(
            event,
            mapping=self._plan.name,
            lane=self._lane.id.name,
            records=len(records),
            first=records[0].id,
            last=records[-1].id,
            **fields,
        )
