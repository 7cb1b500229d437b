"""Which leases are made, which may be read, which are finished: as sentences."""

from esm.domain.leasing import (
    HORIZON,
    LATEST,
    TRIM_HORIZON,
    Lease,
    NewLease,
    Shard,
    Shards,
    Start,
    Starting,
    Watch,
    finished,
    heirs,
    lease_key,
    missing_leases,
    readable,
    trimmed,
)
from esm.domain.record import LaneEnd, Mark

NOON = 1_767_222_000.0
EARLIER = NOON - 3600
AT_NOON = Starting(moment=NOON)


def listing(*shards: str, complete: bool = True) -> Shards:
    """``"a"``, ``"b<a"`` (child of a), ``"c<a+b"`` (merged); a shard that is named as a parent is closed."""
    split = [shard.partition("<") for shard in shards]
    parents = {name: tuple(named.split("+")) if named else () for name, _, named in split}
    closed = {parent for named in parents.values() for parent in named}
    return Shards([Shard(name, named, closed=name in closed) for name, named in parents.items()], complete)


def lease(
    shard: str, *parents: str, ended: bool = False, start: Start = HORIZON, owner: str | None = None, counter: int = 0
) -> Lease:
    mark = Mark((7, 0), ended=LaneEnd()) if ended else None
    return Lease(lease_key("app", shard), shard, counter, owner, start, mark, parents)


def made(shards: Shards, *leases: Lease, starting: Starting = TRIM_HORIZON, now: float = NOON) -> dict[str, Start]:
    return {new.shard: new.start for new in missing_leases("app", shards, leases, starting, now)}


class TestAMappingWithoutLeases:
    def test_begins_at_the_horizon_of_every_shard_closed_ones_first(self) -> None:
        assert list(made(listing("b<a", "a", "c<b")).items()) == [("a", HORIZON), ("b", HORIZON), ("c", HORIZON)]

    def test_names_each_lease_by_app_and_shard_with_all_parents(self) -> None:
        new = missing_leases("app", listing("a", "b", "c<a+b"), [], TRIM_HORIZON, NOON)
        assert new[-1] == NewLease("app/c", "c", HORIZON, ("a", "b"))

    def test_begins_at_a_timestamp_in_every_shard_that_may_hold_it(self) -> None:
        assert made(listing("a", "b<a"), starting=AT_NOON) == {"a": Start(moment=NOON), "b": Start(moment=NOON)}

    def test_begins_at_latest_by_a_moment_and_only_where_records_can_still_arrive(self) -> None:
        assert made(listing("a", "b<a", "c<a"), starting=LATEST) == {"b": Start(moment=NOON), "c": Start(moment=NOON)}

    def test_at_latest_leases_a_closed_shard_whose_children_are_not_listed_yet(self) -> None:
        closed = Shards([Shard("a", closed=True)], complete=False)
        assert made(closed, starting=LATEST) == {"a": Start(moment=NOON)}

    def test_keeps_an_orphan_of_a_trimmed_parent(self) -> None:
        assert made(listing("b<a")) == {"b": HORIZON}


class TestAMappingThatHasLeases:
    def test_makes_none_twice(self) -> None:
        assert made(listing("a"), lease("a")) == {}

    def test_reads_children_from_their_beginning(self) -> None:
        assert made(listing("a", "b<a", "c<a"), lease("a")) == {"b": HORIZON, "c": HORIZON}

    def test_reads_children_of_a_lane_that_began_at_latest_from_their_beginning(self) -> None:
        began = lease("a", start=Start(moment=EARLIER))
        assert made(listing("a", "b<a", "c<b"), began, starting=LATEST) == {"b": HORIZON, "c": HORIZON}

    def test_reads_children_of_a_lane_that_began_at_a_timestamp_from_that_time(self) -> None:
        began = lease("a", start=Start(moment=EARLIER))
        starting = Starting(moment=EARLIER)
        assert made(listing("a", "b<a"), began, starting=starting) == {"b": Start(moment=EARLIER)}

    def test_keeps_the_time_that_it_began_at_when_the_configuration_names_another(self) -> None:
        began = lease("a", start=Start(moment=EARLIER))
        assert made(listing("a", "b<a"), began, starting=AT_NOON) == {"b": Start(moment=EARLIER)}

    def test_makes_no_lease_for_a_shard_with_a_leased_descendant(self) -> None:
        assert made(listing("a", "b<a", "c<b"), lease("c", "b")) == {}

    def test_knows_a_descendant_by_the_parents_in_leases_too(self) -> None:
        assert made(listing("a"), lease("b", "a", ended=True), lease("c", "b")) == {}

    def test_makes_up_for_a_worker_that_died_between_two_first_leases_with_the_same_moment(self) -> None:
        began = lease("a", start=Start(moment=EARLIER))
        assert made(listing("a", "b"), began, starting=LATEST) == {"b": Start(moment=EARLIER)}

    def test_reads_a_shard_that_split_before_its_first_lease_was_made_from_that_moment_on(self) -> None:
        began = lease("a", start=Start(moment=EARLIER))
        then = Start(moment=EARLIER)
        assert made(listing("a", "b", "c<b"), began, starting=LATEST) == {"b": then, "c": then}

    def test_reads_unrelated_shards_whole_when_all_it_knows_are_children(self) -> None:
        assert made(listing("z"), lease("b", "a"), starting=LATEST) == {"z": HORIZON}


class TestAListingWithHoles:
    def test_holds_back_a_child_whose_parent_may_be_in_a_hole(self) -> None:
        assert made(listing("b<a", "c<b", "z", complete=False)) == {"z": HORIZON}

    def test_makes_leases_below_a_leased_parent(self) -> None:
        assert made(listing("b<a", complete=False), lease("a")) == {"b": HORIZON}

    def test_lets_nothing_count_as_gone(self) -> None:
        holed = listing("z", complete=False)
        known = [lease("a"), lease("b", "a"), lease("c", ended=True), lease("e", "d")]
        assert not trimmed(holed, known)
        assert not finished(holed, known)
        assert [found.shard for found in readable(holed, known)] == ["a"]


class TestReading:
    def test_a_child_waits_until_its_parent_is_settled_to_the_end(self) -> None:
        shards = listing("a", "b<a")
        assert [found.shard for found in readable(shards, [lease("a"), lease("b", "a")])] == ["a"]
        assert [found.shard for found in readable(shards, [lease("a", ended=True), lease("b", "a")])] == ["b"]

    def test_a_merged_child_waits_for_both_parents(self) -> None:
        shards = listing("a", "b", "c<a+b")
        half = [lease("a", ended=True), lease("b"), lease("c", "a", "b")]
        whole = [lease("a", ended=True), lease("b", ended=True), lease("c", "a", "b")]
        assert [found.shard for found in readable(shards, half)] == ["b"]
        assert [found.shard for found in readable(shards, whole)] == ["c"]

    def test_a_parent_that_left_the_source_does_not_hold_its_child(self) -> None:
        assert [found.shard for found in readable(listing("b<a"), [lease("b", "a")])] == ["b"]

    def test_a_parent_that_was_left_out_on_purpose_does_not_hold_its_child(self) -> None:
        assert [found.shard for found in readable(listing("a", "b<a"), [lease("b", "a")])] == ["b"]

    def test_a_trimmed_parent_holds_its_child_until_somebody_ended_its_lease(self) -> None:
        known = [lease("a"), lease("b", "a")]
        assert [found.shard for found in trimmed(listing("b<a"), known)] == ["a"]
        assert [found.shard for found in readable(listing("b<a"), known)] == ["a"]


class TestTheEndOfALease:
    def test_a_finished_lease_stays_while_its_shard_is_listed(self) -> None:
        known = [lease("a", ended=True), lease("b", "a")]
        assert not finished(listing("a", "b<a"), known)
        assert [found.shard for found in finished(listing("b<a"), known)] == ["a"]

    def test_heirs_are_the_children_that_exist_and_those_that_are_missing(self) -> None:
        known = [lease("a"), lease("b", "a")]
        new = missing_leases("app", listing("a", "b<a", "c<a", "z"), known, TRIM_HORIZON, NOON)
        assert [child.shard for child in heirs("a", known, new)] == ["b", "c"]


class TestStaleness:
    def test_a_lease_seen_for_the_first_time_is_never_stale(self) -> None:
        watch = Watch(patience=10)
        assert not watch.stale(lease("a", owner="w"), now=1000)
        watch.see([lease("a", owner="w")], now=1000)
        assert not watch.stale(lease("a", owner="w"), now=1010)

    def test_a_counter_that_stood_still_for_longer_than_the_patience_is_stale(self) -> None:
        watch = Watch(patience=10)
        watch.see([lease("a", owner="w", counter=3)], now=1000)
        watch.see([lease("a", owner="w", counter=3)], now=1009)
        assert watch.stale(lease("a", owner="w", counter=3), now=1010.5)

    def test_a_counter_that_grew_is_alive(self) -> None:
        watch = Watch(patience=10)
        watch.see([lease("a", owner="w", counter=3)], now=1000)
        watch.see([lease("a", owner="w", counter=4)], now=1009)
        assert not watch.stale(lease("a", owner="w", counter=4), now=1010.5)
