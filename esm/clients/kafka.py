"""One consumer of a group on aiokafka, with what the library leaves open closed: the only file that knows its insides.

The library's own ``commit`` waits without end, sends whatever generation it is in when it gets round to it, and after
an expelled member's reset even one that an empty group accepts: a late commit overwrote a newer one.  So commits are
sent here, in the generation that they belong to.  Pinned: aiokafka below 0.15.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from msgspec import Struct

from esm.clients.kafka_connections import Opened
from esm.clients.kafka_errors import not_connected, sentence_of
from esm.clients.kafka_log import KafkaLog
from esm.clients.kafka_logins import Login
from esm.domain.errors import LaneLost, NotReady

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition

log = structlog.get_logger()

CONNECT_SECONDS = 15.0
"""Until a broker has answered the first questions."""
STOP_SECONDS = 5.0
COMMIT_SECONDS = 5.0
"""One commit request."""
SESSION_SECONDS = 10.0
"""A member that is silent for so long is expelled."""
HEARTBEAT_SECONDS = 3.0
REQUEST_SECONDS = 30.0
PARTITION_BYTES = 1_048_576
"""Of one reply for one partition, of which the library keeps one at most; a larger batch comes whole."""
FOREVER_MS = 2**31 - 1


class Generation(Struct, frozen=True):
    """One membership: what a commit has to name to be accepted."""

    number: int
    member: str


class Committed(Struct, frozen=True):
    """What the group remembers of a partition."""

    offset: int
    metadata: str = ""


class KafkaSettings(Struct, frozen=True):
    """Which cluster, topic and group, and how patient."""

    mapping: str
    bootstrap_servers: tuple[str, ...]
    topic: str
    group: str
    hand_over: float = 30.0
    """Seconds that a rebalance waits for running attempts; the group stands still meanwhile."""
    fetch_wait: float = 0.5
    """Seconds that a broker keeps an empty fetch open."""
    metadata_age: float = 60.0
    """Seconds after which new partitions are looked for."""
    heartbeat: float = HEARTBEAT_SECONDS
    session: float = SESSION_SECONDS

    @property
    def subject(self) -> str:
        """For sentences."""
        return f"Kafka topic {self.topic} at {','.join(self.bootstrap_servers)}"


class GroupConsumer:
    """One member of one group on one topic.  Its partitions come and go by the two callbacks of ``join``."""

    def __init__(self, settings: KafkaSettings, login: Login) -> None:
        self.settings = settings
        self.heard: float | None = None
        """When the last heartbeat that was answered was sent, by the clock given to ``join``."""
        self._login = login
        self._log = KafkaLog(settings.mapping)
        self._opened = Opened()
        self._consumer = self._make()

    def _make(self) -> "AIOKafkaConsumer":
        from aiokafka import AIOKafkaConsumer

        settings, login = self.settings, self._login
        with self._log.listening():
            return AIOKafkaConsumer(
                bootstrap_servers=list(settings.bootstrap_servers),
                client_id=f"esm-{settings.mapping}",
                group_id=settings.group,
                enable_auto_commit=False,
                auto_offset_reset="none",  # where to start is ours to decide
                isolation_level="read_committed",
                fetch_max_wait_ms=int(settings.fetch_wait * 1000),
                max_partition_fetch_bytes=PARTITION_BYTES,
                metadata_max_age_ms=int(settings.metadata_age * 1000),
                # A lane whose target hangs does not read for hours: that is no reason to leave the group.
                max_poll_interval_ms=FOREVER_MS,
                session_timeout_ms=int(settings.session * 1000),
                heartbeat_interval_ms=int(settings.heartbeat * 1000),
                # By default the session's: whoever hands over for longer would be expelled, its commits refused.
                rebalance_timeout_ms=int((settings.hand_over + 3 * COMMIT_SECONDS) * 1000),
                # Fetches and heartbeats too wait for so long on a broker that fell silent.  A join is answered only
                # when all others have handed over: that may take longer, and then it is sent again.
                request_timeout_ms=int(REQUEST_SECONDS * 1000),
                security_protocol=login.protocol,
                ssl_context=login.tls,
                sasl_mechanism=login.mechanism or "PLAIN",
                sasl_plain_username=login.username if login.mechanism else None,
                sasl_plain_password=login.password if login.mechanism else None,
            )

    # -- connecting

    async def start(self) -> AbstractSet[int]:
        """Connect and look for the topic; answers its partitions.  Raises NotReady.  ``stop`` it whatever happens."""
        from aiokafka.errors import KafkaError

        subject = self.settings.subject
        self._log.quiet = True
        try:
            with self._log.listening(), self._opened.noted(), anyio.fail_after(CONNECT_SECONDS):
                await self._consumer.start()
                known = await self._consumer.topics()  # asks for all: asking for one may create it
                partitions = await self._partitions() if self.settings.topic in known else ()
            self._opened.forget()
        except (KafkaError, OSError, ValueError, AssertionError) as error:  # a TimeoutError is an OSError
            said = [*self._log.reasons, *([] if type(error) is KafkaError else [repr(error)])]
            reasons = self._log.reasons or said
            raise NotReady(not_connected(subject, self._login, reasons)) from error
        finally:
            self._log.quiet = False
        if not partitions:
            raise NotReady(
                f"{subject}: the topic does not exist, or the user may not see it: create it or check topics."
            )
        return frozenset(partitions)

    async def _partitions(self) -> AbstractSet[int]:
        client = self._inside("_client")
        await client.add_topic(self.settings.topic)
        return self._consumer.partitions_for_topic(self.settings.topic) or frozenset[int]()

    def join(
        self,
        now: Callable[[], float],
        on_assigned: Callable[[AbstractSet[int]], None],
        on_revoked: Callable[[], Awaitable[None]],
    ) -> None:
        """Become a member.  ``on_assigned`` must be quick: no heartbeat goes out meanwhile; ``on_revoked`` may wait.

        ``now``: seconds of our own clock, in which ``heard`` is told.
        """
        self._hear_heartbeats(now)

        def assigned(partitions: AbstractSet[int]) -> None:
            self.heard = now()
            on_assigned(partitions)

        with self._log.listening():
            self._consumer.subscribe([self.settings.topic], listener=_listener(assigned, on_revoked))

    def _hear_heartbeats(self, now: Callable[[], float]) -> None:
        coordinator = self._inside("_coordinator")
        beat: Callable[[], Awaitable[bool]] = coordinator._do_heartbeat  # noqa: SLF001 - the library tells nobody

        async def heard() -> bool:
            sent = now()
            answered = await beat()
            if answered:
                self.heard = sent
            return answered

        coordinator._do_heartbeat = heard  # noqa: SLF001 - as above

    def _inside(self, name: str) -> Any:
        """A private part of the library's consumer."""
        return getattr(self._consumer, name)

    # -- the group

    @property
    def generation(self) -> Generation:
        """The membership now; another one than at the assignment means that the partitions may be someone else's."""
        coordinator = self._inside("_coordinator")
        return Generation(int(coordinator.generation), str(coordinator.member_id))

    def check(self) -> None:
        """Raise NotReady for an error that keeps us out of the group."""
        from aiokafka.errors import KafkaError

        try:
            self._inside("_coordinator").check_errors()
        except KafkaError as error:
            raise NotReady(self.sentence(error)) from error

    async def committed(self, partitions: AbstractSet[int]) -> Mapping[int, Committed]:
        """What the group has committed.  Waits as long as the cluster takes; raises KafkaError where it never will."""
        found = await self._inside("_coordinator").fetch_committed_offsets([self._at(each) for each in partitions])
        return {at.partition: Committed(kept.offset, kept.metadata or "") for at, kept in found.items()}

    async def commit(self, generation: Generation, offsets: Mapping[int, Committed]) -> str | None:
        """Commit once; answers None, or why it is not sure to be done.  Raises LaneLost if ``generation`` is over."""
        from aiokafka import errors
        from aiokafka.protocol.commit import OffsetCommitRequest

        entries = [(partition, kept.offset, kept.metadata) for partition, kept in offsets.items()]
        request = OffsetCommitRequest(
            self.settings.group,
            generation.number,
            generation.member,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            [(self.settings.topic, entries)],
        )
        try:
            with anyio.fail_after(COMMIT_SECONDS):
                reply = await self._inside("_coordinator")._send_req(request)  # noqa: SLF001 - see above
        except (errors.KafkaError, TimeoutError) as error:
            return self.sentence(error)
        failed = {errors.for_code(code) for _, answers in reply.topics for _, code in answers} - {errors.NoError}
        if failed & {errors.UnknownMemberIdError, errors.IllegalGenerationError}:
            raise LaneLost(f"{self.settings.subject}: the group {self.settings.group} went on without this worker.")
        if failed & {errors.NotCoordinatorForGroupError, errors.GroupCoordinatorNotAvailableError}:
            self._inside("_coordinator").coordinator_dead()  # have it looked for
        return self.sentence(failed.pop()()) if failed else None

    # -- partitions

    def _at(self, partition: int) -> "TopicPartition":
        from aiokafka import TopicPartition

        return TopicPartition(self.settings.topic, partition)

    async def bounds(self, partitions: AbstractSet[int]) -> Mapping[int, tuple[int, int]]:
        """First and next offset of each.  Raises KafkaError."""
        ats = [self._at(each) for each in partitions]
        begins, ends = await self._consumer.beginning_offsets(ats), await self._consumer.end_offsets(ats)
        return {at.partition: (begins[at], ends[at]) for at in ats}

    async def offsets_at(self, moment: float, partitions: AbstractSet[int]) -> Mapping[int, int]:
        """Of the first record at or after epoch second ``moment``; absent where there is none.  Raises KafkaError."""
        found = await self._consumer.offsets_for_times({self._at(each): int(moment * 1000) for each in partitions})
        return {at.partition: first.offset for at, first in found.items() if first is not None}

    def seek(self, partition: int, offset: int) -> None:
        """Read ``partition`` from ``offset`` on."""
        self._consumer.seek(self._at(partition), offset)

    def pause(self, partition: int) -> None:
        """Fetch nothing for ``partition``; harmless where it is not ours."""
        if self._at(partition) in self._consumer.assignment():
            self._consumer.pause(self._at(partition))

    async def read(self, partition: int, limit: int, wait: float) -> "Sequence[ConsumerRecord]":
        """Up to ``limit`` records; none after ``wait`` seconds.  Raises KafkaError."""
        at = self._at(partition)
        if at not in self._consumer.assignment():
            raise LaneLost(f"{self.settings.subject}: partition {partition} is not ours any more.")
        self._consumer.resume(at)
        found = await self._consumer.getmany(at, timeout_ms=int(wait * 1000), max_records=limit)
        return found.get(at, ())

    async def position(self, partition: int) -> tuple[int, int | None]:
        """Offset of the next record to read, and the end of what can be read, where known."""
        at = self._at(partition)
        end = self._consumer.last_stable_offset(at)
        if end is None or end < 0:
            end = self._consumer.highwater(at)
        return await self._consumer.position(at), end

    def sentence(self, error: BaseException) -> str:
        """An error of the library, for people."""
        return sentence_of(self.settings.subject, error, self.settings.group)

    # -- the end

    async def stop(self) -> None:
        """Leave the group and end every task, in bounded time even if the broker does not answer.

        The library's own ``stop`` works once: cancelled or stuck, it leaves tasks and sockets behind.
        """
        self._opened.close()
        with anyio.move_on_after(STOP_SECONDS, shield=True) as scope, self._log.listening():
            await self._consumer.stop()
        if not scope.cancelled_caught:
            return
        log.warning("kafka_stopped_by_force", mapping=self.settings.mapping, seconds=STOP_SECONDS)
        coordinator = self._inside("_coordinator")
        if coordinator is not None:
            for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
                if task := getattr(coordinator, name):
                    task.cancel()
        for part in (self._inside("_fetcher"), self._inside("_client")):
            with anyio.move_on_after(1, shield=True), contextlib.suppress(Exception):
                if part is not None:
                    await part.close()


def _listener(
    on_assigned: Callable[[AbstractSet[int]], None], on_revoked: Callable[[], Awaitable[None]]
) -> "ConsumerRebalanceListener":
    from aiokafka import ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_revoked(self, revoked: "AbstractSet[TopicPartition]") -> None:
            await on_revoked()

        async def on_partitions_assigned(self, assigned: "AbstractSet[TopicPartition]") -> None:
            on_assigned(frozenset(each.partition for each in assigned))

    return Listener()
