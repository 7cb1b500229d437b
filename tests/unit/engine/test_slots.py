"""Who may invoke: pools of a worker and what targets reserve of them; bytes that all lanes hold together."""

import anyio
import pytest

from esm.engine.buffer import Buffer
from esm.engine.slots import SlotPools, Slots
from tests.support.time import BACKENDS, Backend, jumping

EVENT = 6_291_456


class TestSlots:
    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=BACKENDS)
    def anyio_backend(self, request: pytest.FixtureRequest) -> Backend:
        return jumping(request.param)

    async def _free(self, slots: Slots) -> bool:
        """Whether a slot can be had at once."""
        with anyio.move_on_after(1):
            await slots.take()
            slots.give_back()
            return True
        return False

    async def test_a_worker_has_so_many_and_no_more(self) -> None:
        slots = SlotPools(2).of("tally")
        await slots.take()
        await slots.take()
        assert not await self._free(slots)
        slots.give_back()
        assert await self._free(slots)

    async def test_what_a_target_reserves_is_kept_from_all_others_and_is_its_most(self) -> None:
        pools = SlotPools(3)
        pools.reserve("tally", 2)
        own, other = pools.of("tally"), pools.of("other")
        assert pools.shared == 1
        await other.take()
        assert not await self._free(other)
        await own.take()
        await own.take()
        assert not await self._free(own)

    async def test_mappings_of_one_target_share_what_it_reserved(self) -> None:
        pools = SlotPools(10)
        pools.reserve("tally", 1)
        pools.reserve("tally", 1)
        first, second = pools.of("tally"), pools.of("tally")
        assert pools.shared == 9
        await first.take()
        assert not await self._free(second)

    async def test_a_target_that_reserves_nothing_at_all_is_never_invoked(self) -> None:
        pools = SlotPools(10)
        pools.reserve("tally", 0)
        assert not await self._free(pools.of("tally"))

    async def test_a_wait_that_is_cancelled_holds_nothing(self) -> None:
        pools = SlotPools(1)
        first, second = pools.of("tally"), pools.of("other")
        await first.take()
        assert not await self._free(second)
        first.give_back()
        assert await self._free(second)


class TestBuffer:
    def test_a_lane_may_read_while_there_is_room(self) -> None:
        buffer = Buffer(10 * EVENT)
        buffer.add(3 * EVENT)
        assert buffer.room(holds_nothing=False) == 7 * EVENT

    def test_a_full_buffer_stops_lanes_that_hold_records_and_none_that_holds_nothing(self) -> None:
        buffer = Buffer(EVENT)
        buffer.add(2 * EVENT)
        assert buffer.room(holds_nothing=False) == 0
        assert buffer.room(holds_nothing=True) == EVENT

    def test_those_who_wait_are_woken_once_when_there_is_room_again(self) -> None:
        buffer, woken = Buffer(EVENT), []
        buffer.add(2 * EVENT)
        buffer.on_room(lambda: woken.append("a"))
        buffer.add(-EVENT // 2)
        assert woken == []
        buffer.add(-EVENT)
        buffer.add(-EVENT // 2)
        assert woken == ["a"]

    def test_who_no_longer_waits_is_not_woken(self) -> None:
        buffer, woken = Buffer(EVENT), []

        def wake() -> None:
            woken.append("a")

        buffer.add(2 * EVENT)
        buffer.on_room(wake)
        buffer.forget(wake)
        buffer.add(-2 * EVENT)
        assert woken == []
