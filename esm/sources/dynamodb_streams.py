"""A stream of a DynamoDB table as a ``ports.ShardSource``."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from msgspec.structs import replace

from esm.clients.aws import AwsClients
from esm.clients.aws_errors import Subject
from esm.domain.arn import Arn
from esm.domain.errors import LaneFailed, NotReady
from esm.domain.leasing import Shard, Shards, Start
from esm.domain.record import LaneId
from esm.domain.retry import Jitter
from esm.ports import Clock, ShardReader
from esm.sources.dynamodb_records import DynamoDBRecords, since
from esm.sources.shard_listing import ShardListing, ShardPage
from esm.sources.shards import IteratorExpired, Pace, PacedReader, Page, PositionTrimmed, ReadFailures, answered
from esm.telemetry.metrics import MappingMetrics

if TYPE_CHECKING:
    from types_aiobotocore_dynamodbstreams import DynamoDBStreamsClient
    from types_aiobotocore_dynamodbstreams.type_defs import (
        DescribeStreamInputTypeDef,
        GetShardIteratorInputTypeDef,
        ShardTypeDef,
    )

PACE = Pace(busy=0.25, idle=1.0)
SEQUENCE_DIGITS = 21
"""A sequence number has at least so many; DynamoDB Local fills its own up with zeros and refuses shorter ones."""
MOST_RECORDS = 1000


class DynamoDBStreamsSource:
    """A stream, before it is reached.  ``arn`` is the stream's, with its label.

    ``endpoint_url`` is the mapping's own; see ``AwsClients.endpoint``.
    """

    def __init__(
        self,
        mapping: str,
        arn: Arn,
        region: str,
        endpoint_url: str | None,
        clients: AwsClients,
        clock: Clock,
        jitter: Jitter,
        metrics: MappingMetrics,
        pace: Pace = PACE,
    ) -> None:
        self._mapping, self._arn, self._region, self._endpoint_url = mapping, arn, region, endpoint_url
        self._clients, self._clock, self._jitter, self._metrics = clients, clock, jitter, metrics
        self._pace = pace
        self._label = arn.resource.rpartition("/stream/")[2]
        self._subject = Subject(
            "dynamodb", f"DynamoDB stream {self._label} of table {arn.name}", region, "event_source_arn"
        )
        self._listing = ShardListing(self._subject, jitter)
        self._closed: frozenset[str] = frozenset()
        """Shards that take no more records, as far as was listed."""

    async def discover(self) -> Shards:
        """See ShardSource.  A stream that was disabled is read to its end: it keeps its records for 24 hours."""
        client = await self._client()
        shards, complete = await self._listing.all(lambda token: self._page(client, token))
        self._closed = frozenset(shard.id for shard in shards if shard.closed)
        return Shards(shards, complete, f"{self._arn.name}:{self._label}")

    async def _page(self, client: "DynamoDBStreamsClient", token: str | None) -> ShardPage:
        asked: DescribeStreamInputTypeDef = {"StreamArn": str(self._arn)}
        if token is not None:
            asked["ExclusiveStartShardId"] = token
        reply = await client.describe_stream(**asked)
        answered(reply, "StreamDescription")
        found = reply["StreamDescription"]
        if found["StreamStatus"] == "ENABLING":
            raise NotReady(f"{self._subject.what} in {self._region} is still being enabled: it is looked at again.")
        return ShardPage(
            [_shard(one) for one in found.get("Shards", ())],
            found.get("LastEvaluatedShardId"),
            over=found["StreamStatus"] in ("DISABLING", "DISABLED"),
        )

    @asynccontextmanager
    async def open(self, shard: str, start: Start) -> AsyncGenerator[ShardReader, None]:
        """See ShardSource.  Raises LaneFailed where no client can be made.

        There is no iterator for a moment: reading begins at the horizon, and older records are passed over.  The stream
        tells whole seconds only, so records of the moment's own second are kept, older ones among them: none is lost.
        """
        try:
            client = await self._client()
        except NotReady as error:
            raise LaneFailed(str(error)) from error
        lane = LaneId(self._mapping, shard)
        subject = Subject(
            "dynamodb", f"Shard {shard} of DynamoDB stream {self._label} of table {self._arn.name}", self._region
        )
        calls = _Calls(client, self._arn, shard, DynamoDBRecords(lane, str(self._arn)))
        failures = ReadFailures(lane, self._clock, self._jitter, self._metrics)
        # An empty reply does not say whether more follows; in a closed shard something does: its end.
        pace = replace(self._pace, idle=self._pace.busy) if shard in self._closed else self._pace
        yield PacedReader(calls, subject, start, pace, self._clock, failures)

    async def _client(self) -> "DynamoDBStreamsClient":
        return await self._clients.client("dynamodbstreams", self._region, self._endpoint_url)


class _Calls:
    """``ShardCalls`` of DynamoDB Streams."""

    most = MOST_RECORDS

    def __init__(self, client: "DynamoDBStreamsClient", arn: Arn, shard: str, records: DynamoDBRecords) -> None:
        self._client, self._arn, self._shard, self._records = client, arn, shard, records

    async def iterator(self, start: Start) -> str:
        """See ShardCalls."""
        asked: GetShardIteratorInputTypeDef = {
            "StreamArn": str(self._arn),
            "ShardId": self._shard,
            "ShardIteratorType": "TRIM_HORIZON",
        }
        if start.after is not None:
            asked["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER"
            asked["SequenceNumber"] = f"{start.after[0]:0{SEQUENCE_DIGITS}}"
        try:
            reply = await self._client.get_shard_iterator(**asked)
        except ClientError as error:
            _understand(error)
            raise
        answered(reply, "ShardIterator")
        return reply["ShardIterator"]

    async def page(self, iterator: str, limit: int, moment: float | None) -> Page:
        """See ShardCalls."""
        try:
            reply = await self._client.get_records(ShardIterator=iterator, Limit=limit)
        except ClientError as error:
            _understand(error)
            raise
        answered(reply, "Records")
        found = reply["Records"]
        wanted = found if moment is None else since(found, moment)
        return Page(
            records=self._records.of(wanted),
            through=int(found[-1]["dynamodb"]["SequenceNumber"]) if found else None,
            size=len(found),
            iterator=reply.get("NextShardIterator"),
        )


def _understand(error: ClientError) -> None:
    """Raise what only the reader can put right."""
    match error.response.get("Error", {}).get("Code"):
        case "ExpiredIteratorException":
            raise IteratorExpired(str(error)) from error
        case "TrimmedDataAccessException":
            raise PositionTrimmed(str(error)) from error
        case _:
            pass


def _shard(found: "ShardTypeDef") -> Shard:
    numbers = found.get("SequenceNumberRange", {})
    parent, first = found.get("ParentShardId"), numbers.get("StartingSequenceNumber")
    return Shard(
        id=found["ShardId"],
        parents=(parent,) if parent else (),
        closed="EndingSequenceNumber" in numbers,
        first=int(first) if first else None,
    )
