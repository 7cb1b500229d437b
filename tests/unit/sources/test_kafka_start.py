"""Where partitions begin (delivery-semantics 4.1)."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import pytest

from esm.clients.kafka import Committed
from esm.domain.leasing import LATEST, TRIM_HORIZON, Starting
from esm.domain.record import Gap
from esm.sources.kafka_start import From, Starts

pytestmark = pytest.mark.anyio

BOTH = frozenset({0, 1})


class Cluster:
    """Partitions hold offsets 10 to 19; what came at moment 100 or later begins at 15 in partition 0 alone."""

    def __init__(self, **committed: int) -> None:
        self.kept = {int(name[1:]): Committed(offset, "meta") for name, offset in committed.items()}

    async def committed(self, partitions: AbstractSet[int]) -> Mapping[int, Committed]:
        return {each: kept for each, kept in self.kept.items() if each in partitions}

    async def bounds(self, partitions: AbstractSet[int]) -> Mapping[int, tuple[int, int]]:
        return dict.fromkeys(partitions, (10, 20))

    async def offsets_at(self, moment: float, partitions: AbstractSet[int]) -> Mapping[int, int]:
        assert moment == 100
        return {each: 15 for each in partitions if each == 0}


async def found(starting: Starting, cluster: Cluster, seen: AbstractSet[int] = BOTH) -> Mapping[int, From]:
    starts = Starts("payments", "topic", starting)
    await starts.prepare(cluster, seen)
    return await starts.find(cluster, BOTH)


async def test_trim_horizon_begins_at_the_oldest_record() -> None:
    assert await found(TRIM_HORIZON, Cluster()) == dict.fromkeys(BOTH, From(Committed(10)))


async def test_latest_begins_at_the_end_which_must_be_committed_first() -> None:
    assert await found(LATEST, Cluster()) == dict.fromkeys(BOTH, From(Committed(20), commit=True))


async def test_a_moment_begins_at_the_first_record_since_or_else_at_the_end() -> None:
    assert await found(Starting(moment=100.0), Cluster()) == {
        0: From(Committed(15), commit=True),
        1: From(Committed(20), commit=True),
    }


@pytest.mark.parametrize("starting", [TRIM_HORIZON, LATEST, Starting(moment=100.0)])
async def test_a_commit_comes_before_the_starting_position(starting: Starting) -> None:
    assert await found(starting, Cluster(p0=17, p1=20)) == {
        0: From(Committed(17, "meta")),
        1: From(Committed(20, "meta")),
    }


async def test_a_partition_that_is_new_is_read_whole_even_with_latest() -> None:
    assert (await found(LATEST, Cluster(), seen=frozenset({0})))[1] == From(Committed(10))
    assert (await found(LATEST, Cluster(p0=17)))[1] == From(Committed(10))


async def test_a_partition_whose_commit_vanished_later_is_read_whole_even_with_latest() -> None:
    starts = Starts("payments", "topic", LATEST)
    await starts.prepare(Cluster(), BOTH)
    starts.began()
    assert await starts.find(Cluster(), BOTH) == dict.fromkeys(BOTH, From(Committed(10)))


async def test_a_commit_whose_records_expired_goes_on_at_the_oldest_with_a_gap() -> None:
    assert (await found(LATEST, Cluster(p0=4)))[0] == From(Committed(10), gap=Gap((3, 0), (10, 0)))
    assert (await found(LATEST, Cluster(p0=0)))[0] == From(Committed(10), gap=Gap(None, (10, 0)))


async def test_a_commit_behind_the_end_begins_anew_and_replaces_that_commit() -> None:
    assert (await found(LATEST, Cluster(p0=90)))[0] == From(Committed(10), commit=True, gap=Gap(None, (10, 0)))


async def test_no_partition_asks_for_nothing() -> None:
    assert await Starts("payments", "topic", LATEST).find(Cluster(), frozenset()) == {}
