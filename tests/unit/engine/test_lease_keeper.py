"""Leases are renewed, marks are stored, losses are noticed: on both backends, in time that jumps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from structlog.testing import capture_logs

from esm.domain.errors import LaneLost, LeaseStoreFailed
from esm.domain.leasing import HORIZON, Lease, NewLease
from esm.domain.record import LaneEnd, Mark
from esm.engine.lease_keeper import Held, LeaseKeeper
from tests.support.leases import FaultyLeases
from tests.support.time import BACKENDS, Backend, LoopClock, jumping

pytestmark = pytest.mark.anyio
APP = "app"
FAILOVER = 9.0
"""Renewals are due every 3 s."""


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


class World:
    """One keeper over a store with two free leases, a and b."""

    def __init__(self) -> None:
        self.store = FaultyLeases()
        self.clock = LoopClock()
        self.lost: list[tuple[str, float]] = []
        self.keeper = LeaseKeeper("clicks", self.store, "w1", self.clock, lambda: 0.5, self._on_lost, FAILOVER)

    def _on_lost(self, held: Held) -> None:
        self.lost.append((held.lease.shard, anyio.current_time()))

    async def row(self, shard: str = "a") -> Lease:
        [lease] = [lease for lease in self.store._rows.values() if lease[1].shard == shard]
        return lease[1]

    async def take(self, shard: str = "a") -> Held:
        held = await self.keeper.take(await self.row(shard))
        assert held is not None
        return held

    async def stolen(self, shard: str = "a") -> Lease:
        """The row after another worker took it."""
        taken = await self.store.take(await self.row(shard), "w2")
        assert taken is not None
        return taken

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.store.create(APP, [NewLease("app/a", "a", HORIZON), NewLease("app/b", "b", HORIZON)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.keeper.run)
            yield
            tasks.cancel_scope.cancel()


@pytest.fixture
def world() -> World:
    return World()


def written(world: World) -> list[Mark]:
    return [mark for _, marks in world.store.kept for mark in marks.values() if mark]


class TestRenewals:
    async def test_come_every_third_of_the_failover_for_all_leases_in_one_write(self, world: World) -> None:
        async with world.running():
            await world.take("a")
            await world.take("b")
            began = anyio.current_time()
            await anyio.sleep(100)
        times = [round(at - began, 3) for at, _ in world.store.kept]
        assert times == [3.0 * number for number in range(1, 34)]
        assert all(set(marks) == {"app/a", "app/b"} for _, marks in world.store.kept)
        assert world.lost == []

    async def test_of_leases_that_were_taken_a_little_later_come_along(self, world: World) -> None:
        async with world.running():
            await world.take("a")
            await anyio.sleep(0.5)
            await world.take("b")
            await anyio.sleep(3)
        assert [set(marks) for _, marks in world.store.kept] == [{"app/a", "app/b"}]

    async def test_go_on_after_a_reply_was_lost(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            await anyio.sleep(2.9)
            world.store.lost_replies = 1
            await anyio.sleep(20)
            assert world.keeper.owned(held)
        assert (world.lost, world.store.lost_replies) == ([], 0)

    async def test_count_from_before_they_were_sent(self, world: World) -> None:
        async with world.running():
            world.store.slow = 4
            asked = anyio.current_time()
            held = await world.take()
            assert anyio.current_time() == asked + 4
            world.store.failing = "The disk is gone."
            await anyio.sleep(asked + FAILOVER - 0.01 - anyio.current_time())
            assert world.keeper.owned(held)
            await anyio.sleep(0.02)
            assert not world.keeper.owned(held)


class TestCheckpoints:
    async def test_are_written_once_a_second_with_the_newest_mark(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            await anyio.sleep(0.5)
            began = anyio.current_time()
            for number in range(1, 51):
                world.keeper.note(held, Mark((number, 0)))
                await anyio.sleep(0.1)
            await anyio.sleep(1)
        times = [round(at - began) for at, marks in world.store.kept if marks["app/a"]]
        assert times == [0, 1, 2, 3, 4, 5]
        assert written(world)[-1] == (await world.row()).mark == Mark((50, 0))

    async def test_are_renewals_too(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            await anyio.sleep(2.5)
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(2.9)
        assert len(world.store.kept) == 1

    async def test_a_flush_stores_at_once(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(0.1)
            world.keeper.note(held, Mark((2, 0)))
            now = anyio.current_time()
            await world.keeper.flush(held)
            assert anyio.current_time() == now
            assert (await world.row()).mark == Mark((2, 0))

    async def test_a_flush_of_nothing_writes_nothing(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            await world.keeper.flush(held)
            assert world.store.kept == []

    async def test_a_flush_that_cannot_be_stored_says_so_and_the_mark_is_stored_later(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.store.failing = "The disk is full."
            world.keeper.note(held, Mark((1, 0)))
            with pytest.raises(LeaseStoreFailed, match=r"The disk is full\."):
                await world.keeper.flush(held)
            world.store.failing = None
            await anyio.sleep(5)
            assert (await world.row()).mark == Mark((1, 0))

    async def test_a_mark_noted_during_a_write_is_stored_with_the_next(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.store.slow = 0.2
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(0.1)
            world.keeper.note(held, Mark((2, 0)))
            await anyio.sleep(2)
            assert written(world) == [Mark((1, 0)), Mark((2, 0))]

    async def test_whose_reply_was_lost_are_written_again_with_what_is_newest(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.store.lost_replies = 1
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(0.1)
            assert (await world.row()).mark == Mark((1, 0)), "it was written, we only do not know"
            world.keeper.note(held, Mark((2, 0)))
            await anyio.sleep(5)
            assert (await world.row()).mark == Mark((2, 0))
            assert world.keeper.owned(held)

    async def test_leave_the_end_of_a_shard_to_finish(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.keeper.note(held, Mark((7, 0), ended=LaneEnd(("b",))))
            await world.keeper.flush(held)
            assert held.ended
            assert (await world.row()).mark == Mark((7, 0))


class TestALeaseThatAnotherTook:
    async def test_is_lost_by_the_next_flush_which_writes_nothing(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            stolen = await world.stolen()
            world.keeper.note(held, Mark((9, 0)))
            with pytest.raises(LaneLost, match=r"Lane clicks/a is no longer ours: another worker took it\."):
                await world.keeper.flush(held)
            assert await world.row() == stolen

    async def test_is_lost_by_the_next_renewal_and_nothing_is_written_ever_after(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            other = await world.take("b")
            stolen = await world.stolen()
            await anyio.sleep(3.5)
            assert [shard for shard, _ in world.lost] == ["a"]
            assert not world.keeper.owned(held)
            with pytest.raises(LaneLost):
                world.keeper.note(held, Mark((9, 0)))
            await anyio.sleep(60)
            assert await world.row() == stolen
            assert world.keeper.owned(other), "the others are not touched"

    async def test_cannot_be_finished(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            stolen = await world.stolen()
            assert not await world.keeper.finish(held, Mark((9, 0), ended=LaneEnd()), [])
            assert await world.row() == stolen
            assert [shard for shard, _ in world.lost] == ["a"]

    async def test_is_not_given_up_at_the_end(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.keeper.note(held, Mark((9, 0)))
            stolen = await world.stolen()
        await world.keeper.close()
        assert await world.row() == stolen


class TestAStoreThatFails:
    async def test_for_less_than_the_failover_costs_nothing_and_is_said_once(self, world: World) -> None:
        with capture_logs() as logs:
            async with world.running():
                held = await world.take()
                await anyio.sleep(1)
                world.store.failing = "The disk is full."
                world.keeper.note(held, Mark((1, 0)))
                await anyio.sleep(7)
                world.store.failing = None
                await anyio.sleep(4)
                assert world.keeper.owned(held)
                assert (await world.row()).mark == Mark((1, 0))
        assert world.lost == []
        assert [entry["event"] for entry in logs] == ["lease_store_failed", "lease_store_works_again"]
        assert logs[0]["why"] == "The disk is full."

    async def test_for_longer_loses_all_leases_when_they_run_out_and_nothing_is_written_after(
        self, world: World
    ) -> None:
        async with world.running():
            held = await world.take()
            await world.take("b")
            began = anyio.current_time()
            await anyio.sleep(3.1)  # one renewal
            world.store.failing = "The disk is full."
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(3 + FAILOVER - 3.2)
            assert world.keeper.owned(held)
            await anyio.sleep(0.2)
            assert {shard: round(at - began, 3) for shard, at in world.lost} == {"a": 12.0, "b": 12.0}
            before = await world.row()
            world.store.failing = None
            await anyio.sleep(60)
            assert await world.row() == before
            with pytest.raises(LaneLost, match=r"it could not be renewed for 9 s"):
                await world.keeper.flush(held)

    async def test_that_hangs_is_a_failure_and_leases_run_out_in_time(self, world: World) -> None:
        async with world.running():
            await world.take()
            began = anyio.current_time()
            world.store.hanging = True
            await anyio.sleep(20)
        assert [(shard, round(at - began, 3)) for shard, at in world.lost] == [("a", FAILOVER)]

    async def test_that_hung_once_is_used_again(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.store.hanging = True
            await anyio.sleep(5)
            world.store.hanging = False
            await anyio.sleep(30)
            assert world.keeper.owned(held)
        assert world.lost == []

    async def test_a_suspended_machine_knows_at_once_that_its_leases_ran_out(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.clock.skip(3600)
            assert not world.keeper.owned(held)
            with pytest.raises(LaneLost):
                world.keeper.note(held, Mark((1, 0)))


class TestTheEndOfAShard:
    async def test_makes_the_children_frees_the_lease_and_is_no_loss(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            end = Mark((7, 0), ended=LaneEnd(("c",)))
            world.keeper.note(held, end)
            assert await world.keeper.finish(held, end, [NewLease("app/c", "c", HORIZON, ("a",))])
            ended = await world.row()
            assert (ended.mark, ended.owner, ended.children) == (end, None, ("c",))
            assert (await world.row("c")).parents == ("a",)
            await anyio.sleep(60)
            assert await world.row() == ended
        assert world.lost == []

    async def test_lets_whoever_reads_it_still_leave_in_peace(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            end = Mark((7, 0), ended=LaneEnd())
            world.keeper.note(held, end)
            await world.keeper.finish(held, end, [])
            ended = await world.row()
            world.keeper.note(held, end)
            await world.keeper.flush(held)
            assert await world.row() == ended

    async def test_whose_reply_was_lost_can_be_written_again(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            end = Mark((7, 0), ended=LaneEnd())
            world.store.lost_replies = 1
            with pytest.raises(LeaseStoreFailed):
                await world.keeper.finish(held, end, [])
            assert await world.keeper.finish(held, end, [])
            assert (await world.row()).ended


class TestTheEndOfAWorker:
    async def test_stores_the_last_marks_and_frees_all_leases(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            await world.take("b")
            world.keeper.note(held, Mark((1, 0)))
            await anyio.sleep(0.1)
            world.keeper.note(held, Mark((2, 0)))
        await world.keeper.close()
        assert [(lease.owner, lease.mark) for lease in (await world.row("a"), await world.row("b"))] == [
            (None, Mark((2, 0))),
            (None, None),
        ]

    async def test_tries_again_when_the_store_fails_for_a_moment(self, world: World) -> None:
        async with world.running():
            held = await world.take()
            world.keeper.note(held, Mark((2, 0)))
            world.store.failing = "The file is locked."
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.keeper.close)
            await anyio.sleep(2)
            world.store.failing = None
        row = await world.row()
        assert (row.owner, row.mark) == (None, Mark((2, 0)))

    @pytest.mark.parametrize("fault", ["failing", "hanging"])
    async def test_does_not_wait_for_a_store_that_is_gone(self, world: World, fault: str) -> None:
        async with world.running():
            await world.take()
        setattr(world.store, fault, "The disk is gone." if fault == "failing" else True)
        began = anyio.current_time()
        with capture_logs() as logs:
            await world.keeper.close()
        assert anyio.current_time() - began <= 10
        assert [entry["event"] for entry in logs if entry["event"] == "leases_not_given_up"] == ["leases_not_given_up"]

    async def test_frees_a_lease_even_if_it_was_stopped_while_taking_it(self, world: World) -> None:
        async with world.running():
            world.store.slow = 1
            with anyio.move_on_after(0.5):
                await world.keeper.take(await world.row())
        assert (await world.row()).owner == "w1"
        await world.keeper.close()
        assert (await world.row()).owner is None
