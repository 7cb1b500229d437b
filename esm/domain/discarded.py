"""What is written where when records are given up (failure-destinations 1–3)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from math import floor

from msgspec import Struct

from esm.domain.record import LaneId, Record

_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.0
"""The first and the last second of the years 1–9999, in epoch seconds."""

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


class Reason(StrEnum):
    """Why records were given up; AWS's `condition`, and `RecordExpired`, which is ours."""

    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"
    MAXIMUM_PAYLOAD_SIZE_EXCEEDED = "MaximumPayloadSizeExceeded"
    RECORD_EXPIRED = "RecordExpired"


class Response(Struct, frozen=True):
    """The last answer of the target; there is none when it was never reached."""

    executed_version: str
    function_error: str | None
    """``Unhandled`` after a failed attempt, None for failures that a report named (failure-destinations 2.4)."""


class Discarded(Struct, frozen=True):
    """One failure record, complete before its first try; the same on each further try."""

    id: str
    """The `requestId`: fixed, so that a record stored twice after a lost reply can be recognised."""
    mapping_uuid: str
    lane: LaneId
    function_arn: str
    reason: Reason
    invoke_count: int
    """`approximateInvokeCount`: at least 1, as AWS has it."""
    response: Response | None
    records: Sequence[Record]
    at: float
    """Epoch seconds at which it was given up."""
    batch_info: tuple[str, Json]
    """Member name and content, made by the source's EventKind."""


def failure_record(what: Discarded) -> dict[str, Json]:
    """The JSON document of ``what`` as AWS writes it to SQS and SNS (failure-destinations 2)."""
    document: dict[str, Json] = {
        "requestContext": {
            "requestId": what.id,
            "functionArn": what.function_arn,
            "condition": str(what.reason),
            "approximateInvokeCount": what.invoke_count,
        }
    }
    if what.response is not None:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": what.response.executed_version,
            "functionError": what.response.function_error,
        }
    elif what.reason is Reason.MAXIMUM_PAYLOAD_SIZE_EXCEEDED:
        document["responseContext"] = None  # there, but null (failure-destinations 2.4)
    name, info = what.batch_info
    document |= {"version": "1.0", "timestamp": iso_milliseconds(what.at), name: info}
    return document


def iso_milliseconds(epoch: float) -> str:
    """``2026-01-01T09:30:00.123Z`` for epoch seconds; a time outside the years 1–9999 becomes the nearest inside."""
    # From whole milliseconds: a float such as …00.123 is a hair below its value and would be cut to .122.
    seconds, milliseconds = divmod(round(_writable(epoch) * 1000), 1000)
    return f"{_whole(seconds)}.{milliseconds:03d}Z"


def iso_seconds(epoch: float) -> str:
    """``2026-01-01T09:30:00Z`` for epoch seconds, cut; times outside the years 1–9999 as above."""
    return f"{_whole(floor(_writable(epoch)))}Z"


def _writable(epoch: float) -> float:
    """Producers of Kafka write any number as a timestamp (microseconds, −1); none may stop a failure record."""
    return min(max(epoch, _FIRST), _LAST)


def _whole(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
