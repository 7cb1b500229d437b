"""What every LeaseStore promises."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from esm.domain.leasing import HORIZON, Lease, NewLease, Start
from esm.domain.record import LaneEnd, Mark, OpenBatch
from esm.leases.memory import MemoryLeases
from esm.leases.sqlite import SqliteLeases
from esm.ports import LeaseStore

pytestmark = pytest.mark.anyio

APP = "9f1c/clicks:1767222000"
A = NewLease("k/a", "a", Start(moment=1_767_222_000.123))
B = NewLease("k/b", "b", HORIZON, ("a",))
FAR = Mark(
    through=(49661234567890123456789012345678901234567890123456789012, 3),
    above=(((49661234567890123456789012345678901234567890123456789020, 0), (2**185, 7)),),
    attempts=(OpenBatch((1, 0), (2, 0), 4, "5a4db0c5"),),
)
END = Mark((9, 0), ended=LaneEnd(("b", "c")))


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LeaseStore]:
    if request.param == "memory":
        yield MemoryLeases()
    else:
        async with SqliteLeases(tmp_path / "esm.db") as opened:
            yield opened


async def only(store: LeaseStore) -> Lease:
    [lease] = await store.leases(APP)
    return lease


async def taken(store: LeaseStore, owner: str = "w1") -> Lease:
    await store.create(APP, [A])
    held = await store.take(await only(store), owner)
    assert held is not None
    return held


async def kept(store: LeaseStore, held: Lease, mark: Mark | None = None) -> Lease | None:
    return (await store.keep({held.key: (held, mark)}))[held.key]


async def test_a_new_lease_is_free_and_tells_where_reading_starts(store: LeaseStore) -> None:
    await store.create(APP, [A, B])
    by_key = {lease.key: lease for lease in await store.leases(APP)}
    assert by_key == {
        "k/a": Lease("k/a", "a", 0, None, Start(moment=1_767_222_000.123), None),
        "k/b": Lease("k/b", "b", 0, None, HORIZON, None, ("a",)),
    }


async def test_creating_what_exists_changes_nothing(store: LeaseStore) -> None:
    held = await taken(store)
    await store.create(APP, [NewLease("k/a", "a", HORIZON, ("z",))])
    assert await only(store) == held


async def test_each_app_sees_its_own_leases(store: LeaseStore) -> None:
    await store.create(APP, [A])
    await store.create("other", [NewLease("o/a", "a", HORIZON)])
    assert [lease.key for lease in await store.leases("other")] == ["o/a"]
    assert [lease.key for lease in await store.leases("nobody")] == []


async def test_the_positions_of_others_are_counted_and_a_lease_that_was_just_made_is_none(store: LeaseStore) -> None:
    held = await taken(store)
    await kept(store, held, FAR)
    assert await store.others(APP) == 0
    await store.create("another app", [B])
    assert await store.others("another app") == 1
    assert await store.others(APP) == 0


async def test_of_two_takers_that_saw_the_same_one_is_too_late(store: LeaseStore) -> None:
    await store.create(APP, [A])
    seen = await only(store)
    first, second = await store.take(seen, "w1"), await store.take(seen, "w2")
    assert first is not None
    assert (first.owner, first.counter, second) == ("w1", 1, None)
    assert await only(store) == first


async def test_a_taker_that_lost_the_reply_may_ask_again(store: LeaseStore) -> None:
    await store.create(APP, [A])
    seen = await only(store)
    assert await store.take(seen, "w1") == await store.take(seen, "w1")


async def test_a_lease_that_is_not_there_cannot_be_taken(store: LeaseStore) -> None:
    assert await store.take(Lease("k/x", "x", 0, None, HORIZON, None), "w1") is None


async def test_a_renewal_raises_the_counter_and_leaves_the_mark(store: LeaseStore) -> None:
    held = await taken(store)
    marked = await kept(store, held, FAR)
    assert marked is not None
    renewed = await kept(store, marked)
    assert renewed is not None
    assert (renewed.counter, renewed.mark) == (held.counter + 2, FAR)
    assert await only(store) == renewed


async def test_a_renewal_after_a_takeover_writes_nothing(store: LeaseStore) -> None:
    held = await taken(store)
    stolen = await store.take(held, "w2")
    assert await kept(store, held, FAR) is None
    assert await only(store) == stolen


async def test_a_renewal_whose_reply_was_lost_may_be_sent_again_with_a_newer_mark(store: LeaseStore) -> None:
    held = await taken(store)
    await kept(store, held, Mark((1, 0)))
    again = await kept(store, held, FAR)
    assert again is not None
    assert again.mark == FAR
    assert await kept(store, again) is not None


async def test_a_renewal_whose_reply_was_lost_keeps_the_mark_that_it_wrote(store: LeaseStore) -> None:
    held = await taken(store)
    await kept(store, held, FAR)
    again = await kept(store, held)
    assert again is not None
    assert again.mark == FAR


async def test_a_renewal_two_writes_behind_is_lost(store: LeaseStore) -> None:
    held = await taken(store)
    second = await kept(store, held)
    assert second is not None
    await kept(store, second)
    assert await kept(store, held, FAR) is None


async def test_leases_are_kept_together_and_answered_each(store: LeaseStore) -> None:
    await store.create(APP, [A, B])
    held = [await store.take(lease, "w1") for lease in await store.leases(APP)]
    mine = {lease.key: lease for lease in held if lease}
    await store.take(mine["k/b"], "w2")
    answers = await store.keep({key: (lease, FAR) for key, lease in mine.items()})
    renewed = answers["k/a"]
    assert renewed is not None
    assert (renewed.mark, answers["k/b"]) == (FAR, None)


async def test_the_end_of_a_shard_makes_its_children_and_frees_its_lease(store: LeaseStore) -> None:
    held = await taken(store)
    ended = await store.finish(held, END, [B, NewLease("k/c", "c", HORIZON, ("a",))])
    assert ended is not None
    assert (ended.ended, ended.owner, ended.children, ended.mark) == (True, None, ("b", "c"), END)
    by_shard = {lease.shard: lease for lease in await store.leases(APP)}
    assert by_shard["a"] == ended
    assert [by_shard[child].parents for child in ("b", "c")] == [("a",), ("a",)]


async def test_finishing_twice_is_the_same_as_once(store: LeaseStore) -> None:
    held = await taken(store)
    once = await store.finish(held, END, [B])
    assert await store.finish(held, END, [B]) == once


async def test_finishing_leaves_a_child_that_is_ahead_alone(store: LeaseStore) -> None:
    held = await taken(store)
    await store.create(APP, [B])
    [child] = [lease for lease in await store.leases(APP) if lease.shard == "b"]
    ahead = await store.take(child, "w2")
    await store.finish(held, END, [B])
    assert ahead in await store.leases(APP)


async def test_a_lost_lease_cannot_be_finished(store: LeaseStore) -> None:
    held = await taken(store)
    stolen = await store.take(held, "w2")
    assert await store.finish(held, END, [B]) is None
    assert stolen in await store.leases(APP)


async def test_a_lease_that_was_given_up_is_free_with_its_mark(store: LeaseStore) -> None:
    held = await kept(store, await taken(store), FAR)
    assert held is not None
    await store.give_up(held)
    free = await only(store)
    assert (free.owner, free.mark) == (None, FAR)
    assert await kept(store, held) is None, "the former owner is fenced off"
    assert (await store.take(free, "w2")) is not None


async def test_giving_up_again_after_the_reply_was_lost_changes_nothing(store: LeaseStore) -> None:
    held = await taken(store)
    await store.give_up(held)
    free = await only(store)
    await store.give_up(held)
    assert await only(store) == free


async def test_giving_up_after_a_renewal_whose_reply_was_lost_frees_the_lease(store: LeaseStore) -> None:
    held = await taken(store)
    await kept(store, held, FAR)
    await store.give_up(held)
    free = await only(store)
    assert (free.owner, free.mark) == (None, FAR)


async def test_a_former_owner_that_took_it_anew_is_not_freed_by_its_older_self(store: LeaseStore) -> None:
    held = await taken(store)
    await store.give_up(held)
    anew = await store.take(await only(store), "w1")
    await store.give_up(held)
    assert await only(store) == anew


async def test_giving_up_what_another_took_changes_nothing(store: LeaseStore) -> None:
    held = await taken(store)
    stolen = await store.take(held, "w2")
    await store.give_up(held)
    assert await only(store) == stolen


async def test_only_an_unowned_unchanged_lease_is_deleted(store: LeaseStore) -> None:
    held = await taken(store)
    assert not await store.delete(held)
    await store.give_up(held)
    assert not await store.delete(held)
    assert await store.delete(await only(store))
    assert await store.leases(APP) == []


async def test_deleting_what_is_gone_is_done(store: LeaseStore) -> None:
    assert await store.delete(Lease("k/x", "x", 0, None, HORIZON, None))
