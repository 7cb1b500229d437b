"""What holds for every delivery, whatever the target and the clock do."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from esm.domain.delivery import Delivery, Discard, Invoke, QueueDelivery, Records, StreamDelivery, Wait
from esm.domain.events import EventKind
from esm.domain.outcome import Failed, Outcome, Refused, Succeeded
from esm.domain.record import Record
from esm.domain.retry import RetryPolicy
from tests.support.delivery import KAFKA, KINESIS, NOON, PARTITION, QUEUE, SQS, Luck, at, batch_of, record, report_of

QUICK = settings(max_examples=100, deadline=None)

policies = st.builds(
    RetryPolicy,
    max_retries=st.sampled_from([0, 1, 3]),
    max_age=st.sampled_from([-1, 60]),
    bisect=st.booleans(),
    reports=st.booleans(),
    oversize_spends_retries=st.booleans(),
)


class Story:
    """A machine driven by drawn outcomes, and what became of each record."""

    def __init__(self, machine: Delivery, records: list[Record], kind: EventKind, data: st.DataObject) -> None:
        self.machine, self.kind, self._draw = machine, kind, data.draw
        self.pending = {each.at for each in records}
        self.delivered: list[Record] = []
        self.discarded: list[Record] = []
        self.left: list[Record] = []
        self.invoked: list[list[Record]] = []
        self.failed = 0
        """Attempts in a row that failed: a story has an end."""
        self.ids: dict[str, tuple[int, ...]] = {}
        self.now = 0.0

    def tell(self, vanish: bool) -> None:
        """Go to the end."""
        for _ in range(2000):
            match step := self.machine.next_step(at(self.now)):
                case None:
                    return
                case Wait(until):
                    assert until > self.now
                    self.now = until
                case Discard():
                    assert step.records
                    assert step.invoke_count >= 1
                    self._settle(step.records, self.discarded)
                    self.machine.on_discarded()
                case Invoke():
                    self._invoke(step, vanish)
            assert [each.at for each in self.machine.pending] == [
                each.at for each in sorted(self.machine.pending, key=lambda each: each.at)
            ]
            assert {each.at for each in self.machine.pending} == self.pending
        raise AssertionError("a story without an end")

    def _invoke(self, step: Invoke, vanish: bool) -> None:
        records = list(step.records)
        assert records, "an empty batch"
        assert {each.at for each in records} <= self.pending, "a settled record is sent"
        positions = tuple(each.position for each in records)
        assert self.ids.setdefault(step.request_id, positions) == positions, "a request id for two events"
        if vanish and self._draw(st.integers(0, 9)) == 0:
            usable = [each for each in records if self._draw(st.booleans())]
            if len(usable) < len(records):
                self._settle(self.machine.on_gone(usable), self.left)
                return
        self.invoked.append(records)
        if self._draw(st.integers(0, 19)) == 0:
            verdict = self.machine.on_too_large(at(self.now))
        else:
            self.now += self._draw(st.sampled_from([0.0, 0.5, 30.0]))
            verdict = self.machine.on_result(self._outcome(records), at(self.now))
        self._settle(verdict.delivered, self.delivered)
        self._settle(verdict.left, self.left)

    def _outcome(self, records: list[Record]) -> Outcome:
        self.failed += 1
        how = self._draw(st.sampled_from(["success", "report", "garbage", "failed", "large", "refused"]))
        if self.failed > 25:
            how = "success"
        match how:
            case "report":
                return Succeeded(report_of([each for each in records if self._draw(st.booleans())], self.kind))
            case "garbage":
                return Succeeded(b"{")
            case "failed":
                return Failed("ValueError")
            case "large":
                return Failed("413", too_large=True)
            case "refused":
                return Refused("429", retry_after=self._draw(st.sampled_from([None, 5.0])))
            case _:
                return Succeeded(b"{}")

    def _settle(self, records: Records, into: list[Record]) -> None:
        for each in records:
            self.pending.remove(each.at)  # a KeyError: settled twice
            into.append(each)


def positions(records: list[Record]) -> list[int]:
    return [each.position for each in records]


def in_order(records: list[Record]) -> bool:
    return positions(records) == sorted(positions(records))


@QUICK
@given(data=st.data(), ages=st.lists(st.sampled_from([0, 30, 59, 61]), min_size=1, max_size=9), policy=policies)
def test_each_record_of_a_stream_ends_once_and_in_order(
    data: st.DataObject, ages: list[int], policy: RetryPolicy
) -> None:
    records = [record(number, arrived_at=NOON - age) for number, age in enumerate(ages, 1)]
    story = Story(StreamDelivery(records, policy, KINESIS, at(), Luck()), records, KINESIS, data)
    story.tell(vanish=False)
    assert not story.pending
    assert not story.left
    assert in_order(story.delivered)
    assert len(story.delivered) + len(story.discarded) == len(records)
    _attempts_go_forward(story)


def _attempts_go_forward(story: Story) -> None:
    """A piece begins at or behind the piece before it: nothing settled is passed twice, nothing is skipped."""
    firsts = [attempt[0].position for attempt in story.invoked]
    assert firsts == sorted(firsts)
    assert all(in_order(attempt) for attempt in story.invoked)


@QUICK
@given(data=st.data(), count=st.integers(1, 9), policy=policies)
def test_each_record_of_a_partition_ends_once(data: st.DataObject, count: int, policy: RetryPolicy) -> None:
    policy = RetryPolicy(policy.max_retries, policy.max_age, policy.bisect, policy.reports, resumes_at_lowest=False)
    records = batch_of("abcdefghi"[:count], PARTITION)
    story = Story(StreamDelivery(records, policy, KAFKA, at(), Luck()), records, KAFKA, data)
    story.tell(vanish=False)
    assert not story.pending
    assert sorted(positions(story.delivered + story.discarded)) == list(range(1, count + 1))
    assert all(in_order(attempt) for attempt in story.invoked)


@QUICK
@given(data=st.data(), count=st.integers(1, 9), reports=st.booleans())
def test_each_message_of_a_queue_is_deleted_or_left_once(data: st.DataObject, count: int, reports: bool) -> None:
    records = batch_of("abcdefghi"[:count], QUEUE)
    story = Story(QueueDelivery(records, reports, SQS, at(), Luck()), records, SQS, data)
    story.tell(vanish=True)
    assert not story.pending
    assert not story.discarded
    assert sorted(positions(story.delivered + story.left)) == list(range(1, count + 1))


@QUICK
@given(
    poison=st.sets(st.integers(1, 12), max_size=4),
    count=st.integers(1, 12),
    retries=st.integers(0, 2),
    reports=st.booleans(),
)
def test_bisect_gives_up_the_records_that_break_the_target_and_no_others(
    poison: set[int], count: int, retries: int, reports: bool
) -> None:
    records = [record(number) for number in range(1, count + 1)]
    policy = RetryPolicy(max_retries=retries, bisect=True, reports=True)
    machine = StreamDelivery(records, policy, KINESIS, at(), Luck())
    answer, now = (_reports if reports else _raises)(poison), 0.0
    discarded: list[int] = []
    alone: dict[int, int] = dict.fromkeys(range(1, count + 1), 0)
    while (step := machine.next_step(at(now))) is not None:
        if isinstance(step, Wait):
            now = step.until
        elif isinstance(step, Discard):
            assert step.invoke_count == retries + 1
            discarded += positions(list(step.records))
            machine.on_discarded()
        else:
            for each in step.records if len(step.records) == 1 else []:
                alone[each.position] += 1
            machine.on_result(answer(list(step.records)), at(now))
    assert discarded == sorted(each for each in poison if each <= count)
    assert all(alone[each] == retries + 1 for each in discarded)


def _raises(poison: set[int]) -> Callable[[list[Record]], Outcome]:
    return lambda records: (
        Failed("ValueError") if any(each.position in poison for each in records) else Succeeded(b"null")
    )


def _reports(poison: set[int]) -> Callable[[list[Record]], Outcome]:
    return lambda records: Succeeded(report_of([each for each in records if each.position in poison]))
