"""Rebalances, hand-overs and commits of one member, driven as the library drives its listener."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest

from esm.domain.errors import LaneFailed, LaneLost, LeaseStoreFailed, NotReady
from esm.domain.leasing import LATEST
from esm.domain.record import Gap, LaneId, Mark
from esm.ports import Gone, Granted, Lane, Leaving
from esm.sources.kafka_feed import GroupFeed
from tests.support.kafka_members import FakeMember
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio

SIZE = 1_000_000


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


@asynccontextmanager
async def running(member: FakeMember, *partitions: int, feed: GroupFeed | None = None) -> AsyncGenerator[GroupFeed]:
    feed = feed or member.feed()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        tasks.start_soon(feed.commit)
        member.assign(feed, *partitions)
        yield feed
        tasks.cancel_scope.cancel()


async def granted(feed: GroupFeed) -> Granted:
    with anyio.fail_after(300):
        change = await feed.change()
    assert isinstance(change, Granted)
    return change


async def nothing_comes(feed: GroupFeed, seconds: float) -> None:
    with anyio.move_on_after(seconds) as scope:
        raise AssertionError(await feed.change())
    assert scope.cancelled_caught


async def let_others_run() -> None:
    for _ in range(50):  # time would jump in a sleep
        await anyio.lowlevel.checkpoint()


def lane(partition: int) -> LaneId:
    return LaneId("payments", f"topic-{partition}")


async def settle_through(open_lane: Lane, offset: int) -> None:
    await open_lane.settle((), Mark((offset, 0)))


async def test_a_revocation_waits_until_all_lanes_are_left_and_commits_what_they_settled() -> None:
    member = FakeMember()
    async with running(member, 0, 1) as feed, anyio.create_task_group() as tasks:
        first, second = await granted(feed), await granted(feed)
        over = anyio.Event()

        async def revoke() -> None:
            await feed.revoked()
            over.set()

        async with first.lane as one, second.lane as two:
            await one.read(5, SIZE, 1)
            tasks.start_soon(revoke)
            start = anyio.current_time()
            leaving = {await feed.change(), await feed.change()}
            assert leaving == {Leaving(first.id, start + 20), Leaving(second.id, start + 20)}
            assert one.owned()
            await settle_through(one, 4)  # an attempt that was running ends well
            await feed.left(first.id)
            await anyio.sleep(3)
            assert not over.is_set()
            await settle_through(two, 8)
        await feed.left(second.id)
        await over.wait()
        assert {each: kept.offset for each, kept in member.kept.items()} == {0: 5, 1: 9}


async def test_after_a_revocation_the_old_lanes_write_nothing() -> None:
    member = FakeMember()
    async with running(member, 0) as feed, anyio.create_task_group() as tasks:
        change = await granted(feed)
        async with change.lane as old:
            tasks.start_soon(feed.revoked)
            assert isinstance(await feed.change(), Leaving)
            with anyio.fail_after(60):
                assert await feed.change() == Gone(change.id)  # its deadline is over
            assert not old.owned()
            for write in (lambda: old.settle((), Mark((3, 0))), old.flush, lambda: old.read(1, SIZE, 1)):
                with pytest.raises(LaneLost):
                    await write()
        assert member.commits == []


async def test_a_hand_over_takes_no_longer_than_its_bound_and_two_seconds() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        await granted(feed)
        start = anyio.current_time()
        await feed.revoked()
        assert 20 <= anyio.current_time() - start <= 22.5


async def test_a_partition_that_is_kept_begins_at_its_commit_and_waits_for_the_old_lane_to_be_left() -> None:
    member = FakeMember()
    async with running(member, 0) as feed, anyio.create_task_group() as tasks:
        change = await granted(feed)
        async with change.lane as old:
            await old.read(10, SIZE, 1)
            await settle_through(old, 6)
            tasks.start_soon(feed.revoked)
            assert isinstance(await feed.change(), Leaving)
            assert await feed.change() == Gone(change.id)
            member.assign(feed, 0)
            await nothing_comes(feed, 30)
        await feed.left(change.id)
        again = await granted(feed)
        async with again.lane as new:
            assert new.resumed == Mark((6, 0))
            assert [record.position for record in (await new.read(2, SIZE, 1)).records] == [7, 8]


async def test_a_revocation_ends_a_read_that_the_library_would_hold_for_ever() -> None:
    member = FakeMember()
    async with running(member, 0) as feed, anyio.create_task_group() as tasks:
        change = await granted(feed)
        async with change.lane as open_lane:
            member.rebalancing = True
            start = anyio.current_time()
            tasks.start_soon(feed.revoked)
            chunk = await open_lane.read(10, SIZE, 15)
            assert list(chunk.records) == []
            assert anyio.current_time() - start < 1
        await feed.left(change.id)


async def test_a_lane_that_nobody_took_notice_of_is_taken_back_without_a_word() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        await let_others_run()
        start = anyio.current_time()
        await feed.revoked()
        assert anyio.current_time() == start
        await nothing_comes(feed, 60)
        member.assign(feed, 1)
        assert (await granted(feed)).id == lane(1)


async def test_an_expelled_member_says_gone_at_once_and_commits_nothing() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            await settle_through(open_lane, 3)
            member.expel()
            assert not open_lane.owned()
            start = anyio.current_time()
            await feed.revoked()
            assert (await feed.change(), anyio.current_time()) == (Gone(change.id), start)
        await anyio.sleep(5)
        assert member.commits == []


async def test_an_expulsion_that_no_revocation_follows_is_noticed() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        member.expel()
        with anyio.fail_after(5):
            assert await feed.change() == Gone(change.id)


async def test_a_lane_is_not_ours_after_nine_tenths_of_a_session_without_a_heartbeat() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            member.silent_since = anyio.current_time()
            await anyio.sleep(8.9)
            assert open_lane.owned()
            await anyio.sleep(0.2)
            assert not open_lane.owned()
            await feed.left(change.id)
            await nothing_comes(feed, 30)
            member.silent_since = None  # answered in the same generation: nobody had it meanwhile
            assert open_lane.owned()
            assert (await granted(feed)).id == change.id


async def test_what_is_settled_is_committed_once_a_second() -> None:
    member = FakeMember()
    async with running(member, 0, 1) as feed:
        first, second = await granted(feed), await granted(feed)
        async with first.lane as one, second.lane as two:
            for offset in range(10):
                await settle_through(one, offset)
                await settle_through(two, offset)
                await anyio.sleep(0.3)
            await anyio.sleep(2)
        assert 3 <= len(member.commits) <= 5
        assert {each: kept.offset for each, kept in member.commits[-1].items()} == {0: 10, 1: 10}


async def test_a_commit_that_fails_is_tried_again_and_never_forgotten() -> None:
    member = FakeMember()
    member.fails = ["not now"] * 3
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            await settle_through(open_lane, 3)
            await open_lane.flush()
            assert member.kept[0].offset == 4


async def test_a_flush_that_nobody_answers_ends_in_ten_seconds() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            member.deaf = True
            await settle_through(open_lane, 3)
            start = anyio.current_time()
            with pytest.raises(LeaseStoreFailed):
                await open_lane.flush()
            assert 9 <= anyio.current_time() - start <= 11
            member.deaf = False
            await open_lane.flush()
            assert member.kept[0].offset == 4


async def test_a_commit_of_an_old_generation_loses_every_lane() -> None:
    member = FakeMember()
    async with running(member, 0, 1) as feed:
        changes = [await granted(feed), await granted(feed)]
        async with changes[0].lane as open_lane:
            member.fails = [LaneLost("The group went on without this worker.")]
            await settle_through(open_lane, 3)
            with anyio.fail_after(5):
                assert {await feed.change(), await feed.change()} == {Gone(change.id) for change in changes}
            assert not open_lane.owned()


async def test_latest_is_committed_before_a_lane_is_granted_and_tried_again_until_it_is() -> None:
    member = FakeMember()
    member.ends[0] = 70
    feed = member.feed(LATEST)
    await feed._starts.prepare(member, frozenset({0}))
    member.fails = ["not now", "not now"]
    async with running(member, 0, feed=feed):
        change = await granted(feed)
        assert [kept[0].offset for kept in member.commits] == [70]
        async with change.lane as open_lane:
            assert open_lane.resumed == Mark((69, 0))


async def test_a_cluster_that_cannot_say_where_to_begin_is_asked_again() -> None:
    member = FakeMember()
    member.unknown = 4
    async with running(member, 0) as feed:
        assert (await granted(feed)).id == lane(0)
        assert member.unknown == 0


async def test_a_lane_that_is_left_again_and_again_is_granted_after_longer_and_longer_waits() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        times = []
        for _ in range(5):
            change = await granted(feed)
            times.append(anyio.current_time())
            await feed.left(change.id)
        waits = [later - earlier for earlier, later in pairwise(times)]
        assert waits[0] >= 0.9
        assert [longer / wait for wait, longer in pairwise(waits)] == pytest.approx([2, 2, 2])


async def test_a_partition_that_nobody_reads_is_paused() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        assert member.paused == {0}
        change = await granted(feed)
        async with change.lane as open_lane:
            await open_lane.read(1, SIZE, 1)
            assert member.paused == set()
            await anyio.sleep(3)
            assert member.paused == {0}
            await open_lane.read(1, SIZE, 1)
            assert member.paused == set()


async def test_a_topic_that_ends_before_the_position_is_read_from_its_beginning_by_a_new_lane() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            await open_lane.read(50, SIZE, 1)
            await settle_through(open_lane, 49)
            await open_lane.flush()
            member.ends[0] = 5
            with pytest.raises(LaneFailed):
                await open_lane._jump()
        await feed.left(change.id)
        again = await granted(feed)
        assert member.kept[0].offset == 0
        async with again.lane as new:
            chunk = await new.read(10, SIZE, 1)
            assert (new.resumed, chunk.gap, list(chunk.records)) == (None, Gap(None, (0, 0)), [])
            assert [record.position for record in (await new.read(10, SIZE, 1)).records] == [0, 1, 2, 3, 4]


async def test_an_error_that_keeps_us_out_of_the_group_comes_out_of_the_feed() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        await granted(feed)
        member.trouble = "The user may not use the group."
        with anyio.fail_after(5), pytest.raises(NotReady, match="may not use the group"):
            await feed.change()


async def test_closing_commits_what_is_settled_and_ends_a_hand_over() -> None:
    member = FakeMember()
    async with running(member, 0) as feed, anyio.create_task_group() as tasks:
        change = await granted(feed)
        async with change.lane as open_lane:
            await settle_through(open_lane, 3)
            tasks.start_soon(feed.revoked)
            await let_others_run()
            start = anyio.current_time()
            await feed.close()
            assert member.kept[0].offset == 4
            assert anyio.current_time() == start


async def test_closing_is_bounded_when_nobody_answers() -> None:
    member = FakeMember()
    async with running(member, 0) as feed:
        change = await granted(feed)
        async with change.lane as open_lane:
            await settle_through(open_lane, 3)
            member.deaf = True
            start = anyio.current_time()
            await feed.close()
            assert anyio.current_time() - start <= 6
