"""A Kinesis data stream as a ``ports.ShardSource``, read by GetRecords."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import ClientError

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import Subject
from esm.domain.arn import Arn
from esm.domain.errors import LaneFailed, NotReady
from esm.domain.leasing import Shard, Shards, Start
from esm.domain.record import LaneId
from esm.domain.retry import Jitter
from esm.ports import Clock, ShardReader
from esm.sources.kinesis_records import KinesisRecords, millisecond, since
from esm.sources.shard_listing import ShardListing, ShardPage
from esm.sources.shards import IteratorExpired, Pace, PacedReader, Page, PositionTrimmed, ReadFailures, answered
from esm.telemetry.metrics import MappingMetrics

if TYPE_CHECKING:
    from types_aiobotocore_kinesis import KinesisClient
    from types_aiobotocore_kinesis.type_defs import GetShardIteratorInputTypeDef, ShardTypeDef

log = structlog.get_logger()

PACE = Pace(busy=0.2, idle=1.0)
"""AWS serves 5 GetRecords a second and shard, for all readers together."""
MOST_RECORDS = 10_000
_MOST_SECONDS_AHEAD = 600.0
"""By which our clock may be ahead of the service's; from five minutes on no signature is accepted."""


class KinesisSource:
    """A stream, before it is reached.

    ``role`` tells what events show as `invokeIdentityArn`; it is asked when a shard is opened.  ``endpoint_url`` is the
    mapping's own; see ``AwsClients.endpoint``.
    """

    def __init__(
        self,
        mapping: str,
        arn: Arn,
        region: str,
        endpoint_url: str | None,
        role: Callable[[], str],
        clients: AwsClients,
        clock: Clock,
        jitter: Jitter,
        metrics: MappingMetrics,
        pace: Pace = PACE,
    ) -> None:
        self._mapping, self._arn, self._region, self._endpoint_url = mapping, arn, region, endpoint_url
        self._role = role
        self._clients, self._clock, self._jitter, self._metrics = clients, clock, jitter, metrics
        self._pace = pace
        self._subject = Subject("kinesis", f"Kinesis stream {arn.name}", region, "event_source_arn")
        self._listing = ShardListing(self._subject, jitter)

    async def discover(self) -> Shards:
        """See ShardSource.  A stream that is still being created is not ready."""
        if "/consumer/" in self._arn.resource:
            raise NotReady(
                f"{self._arn} names a consumer with enhanced fan-out, which is not supported yet: name the stream in "
                f"event_source_arn, {str(self._arn).partition('/consumer/')[0]}."
            )
        client = await self._client()
        created = await self._listing.ask(lambda: self._creation(client))
        shards, complete = await self._listing.all(lambda token: self._page(client, token))
        return Shards(shards, complete, f"{self._arn.name}:{created}")

    async def _creation(self, client: "KinesisClient") -> int:
        """When the stream was created, epoch seconds: tells it from an earlier one of its name."""
        reply = await client.describe_stream_summary(StreamName=self._arn.name, StreamARN=str(self._arn))
        answered(reply, "StreamDescriptionSummary")
        summary = reply["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "CREATING":
            raise NotReady(f"{self._subject.what} in {self._region} is still being created: it is looked at again.")
        return int(summary["StreamCreationTimestamp"].timestamp())

    async def _page(self, client: "KinesisClient", token: str | None) -> ShardPage:
        # AWS wants the ARN for a stream of another account; emulators know the name alone.  A token stands for both.
        if token is None:
            reply = await client.list_shards(StreamName=self._arn.name, StreamARN=str(self._arn))
        else:
            reply = await client.list_shards(NextToken=token)
        answered(reply, "Shards")
        return ShardPage([_shard(one) for one in reply["Shards"]], reply.get("NextToken"))

    @asynccontextmanager
    async def open(self, shard: str, start: Start) -> AsyncGenerator[ShardReader, None]:
        """See ShardSource.  Raises LaneFailed where no client can be made."""
        try:
            client = await self._client()
        except NotReady as error:
            raise LaneFailed(str(error)) from error
        lane = LaneId(self._mapping, shard)
        subject = Subject("kinesis", f"Shard {shard} of Kinesis stream {self._arn.name}", self._region)
        calls = _Calls(client, self._arn, shard, KinesisRecords(lane, str(self._arn), self._region, self._role()))
        failures = ReadFailures(lane, self._clock, self._jitter, self._metrics)
        yield PacedReader(calls, subject, start, self._pace, self._clock, failures)

    async def _client(self) -> "KinesisClient":
        return await self._clients.client("kinesis", self._region, self._endpoint_url)


class _Calls:
    """``ShardCalls`` of Kinesis."""

    most = MOST_RECORDS

    def __init__(self, client: "KinesisClient", arn: Arn, shard: str, records: KinesisRecords) -> None:
        self._client, self._arn, self._shard, self._records = client, arn, shard, records
        self._ahead = 0.0
        """Seconds by which our clock seems to be ahead of the service's."""

    async def iterator(self, start: Start) -> str:
        """See ShardCalls.

        For a position that is older than the horizon the documentation speaks of InvalidArgumentException.  Should the
        service begin at the oldest record instead, reading goes on there and no gap is told.
        """
        asked: GetShardIteratorInputTypeDef = {
            "StreamName": self._arn.name,
            "StreamARN": str(self._arn),
            "ShardId": self._shard,
            "ShardIteratorType": "TRIM_HORIZON",
        }
        if start.after is None and start.moment is not None:
            return await self._iterator_at(asked, start.moment)
        if start.after is not None:
            asked["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            asked["StartingSequenceNumber"] = str(start.after[0])
        try:
            return await self._iterator(asked)
        except ClientError as error:
            if start.after is not None and _code(error) == "InvalidArgumentException":
                raise PositionTrimmed(str(error)) from error
            raise

    async def _iterator_at(self, asked: "GetShardIteratorInputTypeDef", moment: float) -> str:
        """An iterator at ``moment``, or somewhat before it where the service says that it lies in the future.

        The moment was read from our clock.  If that is ahead, the same moment was earlier by the service's clock: an
        earlier time is asked for, twice as early at each refusal.
        """
        asked["ShardIteratorType"] = "AT_TIMESTAMP"
        while True:
            asked["Timestamp"] = datetime.fromtimestamp(millisecond(moment) - self._ahead, UTC)
            try:
                return await self._iterator(asked)
            except ClientError as error:
                if _code(error) != "InvalidArgumentException" or self._ahead >= _MOST_SECONDS_AHEAD:
                    raise
            self._ahead = max(1.0, self._ahead * 2)
            log.warning("clock_ahead_of_source", shard=self._shard, seconds=self._ahead)

    async def _iterator(self, asked: "GetShardIteratorInputTypeDef") -> str:
        reply = await self._client.get_shard_iterator(**asked)
        answered(reply, "ShardIterator")
        return reply["ShardIterator"]

    async def page(self, iterator: str, limit: int, moment: float | None) -> Page:
        """See ShardCalls."""
        try:
            reply = await self._client.get_records(ShardIterator=iterator, Limit=limit, StreamARN=str(self._arn))
        except ClientError as error:
            if _code(error) == "ExpiredIteratorException":
                raise IteratorExpired(str(error)) from error
            raise
        answered(reply, "Records")
        found = reply["Records"]
        wanted = found if moment is None else since(found, moment - self._ahead)
        return Page(
            records=self._records.of(wanted),
            through=int(found[-1]["SequenceNumber"]) if found else None,
            size=len(found),
            iterator=reply.get("NextShardIterator"),
            behind=reply.get("MillisBehindLatest", 0) / 1000,
            children=tuple(child["ShardId"] for child in reply.get("ChildShards", ())),
        )


def _shard(found: "ShardTypeDef") -> Shard:
    numbers = found["SequenceNumberRange"]
    parents = (found.get("ParentShardId"), found.get("AdjacentParentShardId"))
    return Shard(
        id=found["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        closed="EndingSequenceNumber" in numbers,
        first=int(numbers["StartingSequenceNumber"]),
    )


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
