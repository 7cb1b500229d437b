"""Which listings are believed; on time that jumps."""

from collections.abc import Sequence

import anyio.lowlevel
import pytest

from esm.domain.errors import NotReady
from esm.domain.leasing import Shard
from esm.sources.shard_listing import ShardListing, ShardPage
from tests.support.shard_calls import SUBJECT, error, no_answer
from tests.support.time import BACKENDS, Backend, jumping

pytestmark = pytest.mark.anyio

PARENT, CHILD, OTHER = Shard("a", closed=True), Shard("b", ("a",)), Shard("c")


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return jumping(request.param)


class Pages:
    """Answers pages, or raises, one call after the other."""

    def __init__(self, *script: Sequence[Shard] | Exception, over: bool = False) -> None:
        self._script, self._over = list(script), over
        self.tokens: list[str | None] = []

    async def __call__(self, token: str | None) -> ShardPage:
        await anyio.lowlevel.checkpoint()
        self.tokens.append(token)
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ShardPage(answer, f"after {answer[-1].id}" if self._script else None, self._over)


def listing() -> ShardListing:
    return ShardListing(SUBJECT, lambda: 0.5)


async def test_all_pages_make_one_complete_listing() -> None:
    pages = Pages([PARENT], [CHILD, OTHER])
    assert await listing().all(pages) == ((PARENT, CHILD, OTHER), True)
    assert pages.tokens == [None, "after a"]


async def test_throttled_pages_are_asked_for_again() -> None:
    throttle = error("LimitExceededException", operation="DescribeStream")
    pages = Pages(throttle, [PARENT], throttle, error("InternalFailure", 500), [CHILD])
    assert await listing().all(pages) == ((PARENT, CHILD), True)


@pytest.mark.parametrize("failure", [no_answer(), error("ExpiredNextTokenException")], ids=["timeout", "token"])
async def test_a_later_page_that_cannot_be_had_makes_the_listing_incomplete(failure: Exception) -> None:
    assert await listing().all(Pages([OTHER], failure)) == ((OTHER,), False)


async def test_throttles_that_do_not_end_make_a_started_listing_incomplete() -> None:
    throttles = [error("LimitExceededException")] * 5
    assert await listing().all(Pages([OTHER], *throttles)) == ((OTHER,), False)


@pytest.mark.parametrize("before", [(), ([OTHER],)], ids=["first page", "second page"])
@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "ExpiredTokenException"])
async def test_a_page_that_never_can_be_had_is_not_ready(code: str, before: tuple[Sequence[Shard], ...]) -> None:
    with pytest.raises(NotReady, match="Shard shard-7 of Kinesis stream clicks in eu-west-1"):
        await listing().all(Pages(*before, error(code, operation="ListShards")))


async def test_a_first_page_that_cannot_be_had_is_not_ready() -> None:
    with pytest.raises(NotReady, match="did not answer in time"):
        await listing().all(Pages(no_answer()))


async def test_a_closed_shard_without_children_makes_a_listing_incomplete_until_it_was_seen_often() -> None:
    found = listing()
    assert [(await found.all(Pages([PARENT, OTHER])))[1] for _ in range(6)] == [False] * 4 + [True] * 2


async def test_children_that_appear_make_the_listing_complete_and_the_count_begin_anew() -> None:
    found = listing()
    seen = [[PARENT]] * 3 + [[PARENT, CHILD]] + [[PARENT]]
    assert [(await found.all(Pages(one)))[1] for one in seen] == [False, False, False, True, False]


async def test_a_stream_at_its_end_has_closed_shards_without_children() -> None:
    assert await listing().all(Pages([PARENT], over=True)) == ((PARENT,), True)


async def test_a_parent_that_left_the_listing_makes_no_hole() -> None:
    assert await listing().all(Pages([CHILD])) == ((CHILD,), True)
