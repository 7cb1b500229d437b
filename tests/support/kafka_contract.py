"""What a lane of Kafka promises, for any cluster: a class to inherit, with a fixture ``world``."""

import asyncio

import anyio
import pytest

from esm.domain.errors import NotReady
from esm.domain.leasing import LATEST
from esm.domain.record import Mark, OpenBatch
from esm.ports import Granted
from tests.support.kafka_clusters import (
    SIZE,
    KafkaWorld,
    fed,
    granted,
    members,
    offsets,
    opened,
    settled,
    take,
    until,
)


class KafkaLaneContract:
    """Inherit it in a test module that has a fixture ``world``: a KafkaWorld whose topic is not created yet."""

    async def test_a_record_names_its_partition_and_offset(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"one", b"two", key=b"k1")
        async with opened(world.source()) as lane:
            _, record = await take(lane, 2)
        assert (record.lane, record.position, record.sub) == (world.lane(), 1, 0)
        assert (record.id, record.key) == (f"{world.topic}-0:1", b"k1")
        entry = members(record)
        stamp = entry.pop("timestamp")
        assert record.arrived_at == stamp / 1000 > 1_700_000_000
        assert entry == {
            "topic": world.topic,
            "partition": 0,
            "offset": 1,
            "timestampType": "CREATE_TIME",
            "key": "azE=",
            "value": "dHdv",
            "headers": [],
        }

    async def test_a_record_without_key_and_value_has_no_key_and_the_value_null(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"first")
        await world.put(None, key=b"k")
        async with opened(world.source()) as lane:
            first, tombstone = await take(lane, 2)
        assert "key" not in members(first)
        assert first.key is None
        assert members(tombstone)["value"] is None

    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    async def test_compressed_records_are_read(self, world: KafkaWorld, codec: str) -> None:
        await world.create()
        await world.put(*(b"value" * 100 for _ in range(5)), compression=codec)
        async with opened(world.source()) as lane:
            records = await take(lane, 5)
        assert offsets(records) == [0, 1, 2, 3, 4]

    async def test_an_empty_partition_answers_an_empty_chunk(self, world: KafkaWorld) -> None:
        await world.create()
        async with opened(world.source()) as lane:
            for wait in (0.0, 0.3):
                chunk = await lane.read(10, SIZE, wait)
                assert (list(chunk.records), chunk.through, chunk.more, chunk.gap) == ([], None, False, None)

    async def test_no_read_brings_more_than_its_limit_and_tells_what_is_left(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(*(b"%d" % number for number in range(10)))
        async with opened(world.source()) as lane:
            first = await lane.read(4, SIZE, 5)
            rest = await lane.read(100, SIZE, 5)
        assert (offsets(first.records), first.through, first.more, first.lag_records) == ([0, 1, 2, 3], (3, 0), True, 6)
        assert (offsets(rest.records), rest.through, rest.more, rest.lag_records) == ([*range(4, 10)], (9, 0), False, 0)

    async def test_a_read_stays_near_its_size(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(*(bytes(1_000) for _ in range(200)))
        async with opened(world.source()) as lane:
            await take(lane, 50)
            chunk = await lane.read(1_000, 20_000, 5)
        assert 5 <= len(chunk.records) <= 20

    async def test_a_read_that_waits_brings_what_is_put_meanwhile(self, world: KafkaWorld) -> None:
        await world.create()
        got: list[int] = []

        async def read() -> None:
            got.extend(offsets(await take(lane, 1)))

        async with opened(world.source()) as lane, anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await world.put(b"meanwhile")
        assert got == [0]

    async def test_the_next_owner_begins_behind_what_was_settled(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(*(b"%d" % number for number in range(6)))
        async with opened(world.source()) as lane:
            assert lane.resumed is None
            records = await take(lane, 6)
            await settled(lane, records[:4])
        assert await world.committed() == 4
        async with opened(world.source()) as lane:
            assert lane.resumed == Mark((3, 0))
            assert offsets(await take(lane, 2)) == [4, 5]

    async def test_what_is_settled_is_committed_within_moments_and_at_the_end(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"one", b"two")

        async def is_committed() -> bool:
            return await world.committed() == 1

        async with opened(world.source()) as lane:
            records = await take(lane, 2)
            await lane.settle(records[:1], Mark((0, 0)))
            await until(is_committed)
            await lane.settle(records[1:], Mark((1, 0)))
        assert await world.committed() == 2

    async def test_the_attempts_of_an_open_batch_travel_with_the_commit(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(*(b"%d" % number for number in range(6)))
        mark = Mark((1, 0), attempts=(OpenBatch((2, 0), (4, 0), 3, "8b0c"),))
        async with opened(world.source()) as lane:
            await lane.settle(await take(lane, 2), mark)
            await lane.flush()
        async with opened(world.source()) as lane:
            assert lane.resumed == mark

    async def test_latest_loses_nothing_over_a_restart(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"before")
        async with opened(world.source(LATEST)) as lane:
            assert list((await lane.read(10, SIZE, 0.3)).records) == []
        assert await world.committed() == 1
        await world.put(b"while nobody reads")
        async with opened(world.source(LATEST)) as lane:
            assert offsets(await take(lane, 1)) == [1]

    async def test_every_partition_is_a_lane_that_waits_for_no_other(self, world: KafkaWorld) -> None:
        await world.create(partitions=3)
        for partition in range(3):
            await world.put(*(b"%d" % number for number in range(5)), partition=partition)
        async with fed(world.source()) as feed:
            changes = [await granted(feed) for _ in range(3)]
            assert {change.id for change in changes} == {world.lane(each) for each in range(3)}
            async with changes[0].lane, changes[1].lane as lane, changes[2].lane as other:  # the first never reads
                assert offsets(await take(other, 5)) == offsets(await take(lane, 5)) == [0, 1, 2, 3, 4]
                await world.put(b"more", partition=int(lane.id.name[-1]))
                assert offsets(await take(lane, 1)) == [5]
            for change in changes:
                await feed.left(change.id)

    async def test_a_lane_that_was_left_is_granted_again_behind_what_was_settled(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(*(b"%d" % number for number in range(4)))
        async with fed(world.source()) as feed:
            change = await granted(feed)
            async with change.lane as lane:
                records = await take(lane, 3)
                await lane.settle(records[:1], Mark((0, 0)))
            await feed.left(change.id)
            again = await granted(feed)
            assert again.id == change.id
            async with again.lane as lane:
                assert lane.resumed == Mark((0, 0))
                assert offsets(await take(lane, 3)) == [1, 2, 3]
            await feed.left(again.id)

    async def test_a_member_that_reads_nothing_stays_in_the_group(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"one")
        async with fed(world.source()) as feed:
            change = await granted(feed)
            async with change.lane as lane:
                idle_until = anyio.current_time() + world.settings().session + 0.1
                await until(lambda: anyio.current_time() > idle_until)
                assert lane.owned()
                await settled(lane, await take(lane, 1))
            await feed.left(change.id)
            assert await world.committed() == 1

    async def test_no_task_outlives_a_connection_however_it_ends(self, world: KafkaWorld) -> None:
        await world.create()
        await world.put(b"one")
        before = asyncio.all_tasks()
        async with opened(world.source()) as lane:
            await take(lane, 1)
        await until(lambda: asyncio.all_tasks() == before)
        for step in range(16):  # from half a millisecond to half a second, through every step of connecting
            with anyio.move_on_after(0.0005 * 1.6**step):
                async with world.source(group=f"{world.group}-{step}").connect():
                    await anyio.sleep_forever()
            await until(lambda: asyncio.all_tasks() == before)

    async def test_a_topic_that_is_missing_is_named_and_found_once_it_is_there(self, world: KafkaWorld) -> None:
        source = world.source()
        with pytest.raises(NotReady, match=rf"Kafka topic {world.topic} at 127\.0\.0\.1:\d+: the topic does not exist"):
            async with fed(source):
                pass
        await world.create()
        async with fed(source) as feed:
            assert isinstance(await granted(feed), Granted)
