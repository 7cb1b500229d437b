"""A Kafka topic, read as a member of a consumer group: a ``ports.Source``."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from msgspec.structs import replace

from esm.clients.aws import AwsClients
from esm.clients.kafka import CONNECT_SECONDS, GroupConsumer, KafkaSettings
from esm.clients.kafka_logins import Access, login_of
from esm.domain.errors import NotReady
from esm.domain.leasing import TRIM_HORIZON, Starting
from esm.domain.retry import Jitter
from esm.ports import AttemptLimits, Clock, LaneFeed
from esm.sources.kafka_feed import GroupFeed
from esm.sources.kafka_start import Starts

__all__ = ["Access", "KafkaSettings", "KafkaSource"]

HAND_OVER_SECONDS = 5.0
"""What a lane may take to leave beyond its longest attempt."""
CLOSE_SECONDS = 8.0
"""For the last commits."""


class KafkaSource:
    """One topic for one mapping.  Speaks asyncio, as aiokafka does.

    ``accesses`` and ``tls`` say how to log in; secrets are read at each ``connect``.  ``starting`` counts where the
    group has no commit.  ``aws`` reads secrets that are named by an ARN.  ``longest`` tells how many seconds an attempt
    may take, for which a rebalance waits.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        clock: Clock,
        jitter: Jitter,
        starting: Starting = TRIM_HORIZON,
        accesses: Sequence[Access] = (),
        tls: bool = False,
        aws: AwsClients | None = None,
        longest: Callable[[], Awaitable[float]] | None = None,
    ) -> None:
        self._longest = longest
        self._settings, self._clock, self._jitter = settings, clock, jitter
        self._accesses, self._tls, self._aws = accesses, tls, aws
        self._starts = Starts(settings.mapping, settings.topic, starting)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[tuple[LaneFeed, AttemptLimits], None]:
        """See Source: connects, checks topic and group, joins.  Leaving commits what is settled and leaves the group.

        Raises NotReady when the cluster is out of reach, the login is refused, the topic is missing or the group may
        not be used.
        """
        login = await login_of(self._accesses, self._tls, self._aws, self._settings.subject)
        settings = self._settings
        if self._longest is not None:
            settings = replace(settings, hand_over=await self._longest() + HAND_OVER_SECONDS)
        consumer = GroupConsumer(settings, login)
        feed = GroupFeed(consumer, self._starts, self._clock, self._jitter)
        raised: Exception | None = None
        try:
            await self._prepare(consumer)
            consumer.join(feed.now, feed.assigned, feed.revoked)
            async with anyio.create_task_group() as tasks:
                try:
                    tasks.start_soon(feed.run)
                    tasks.start_soon(feed.commit)
                    yield feed, AttemptLimits()
                except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it
                    raised = error
                tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await feed.close()
            await consumer.stop()
        if raised is not None:
            raise raised

    async def _prepare(self, consumer: GroupConsumer) -> None:
        """Everything that can be known before joining; the group's coordinator has to answer for it."""
        from aiokafka.errors import KafkaError

        partitions = await consumer.start()
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                await self._starts.prepare(consumer, partitions)
        except TimeoutError as error:
            raise NotReady(
                f"{self._settings.subject}: the coordinator of group {self._settings.group} did not answer within "
                f"{CONNECT_SECONDS:g} s."
            ) from error
        except KafkaError as error:
            raise NotReady(consumer.sentence(error)) from error
