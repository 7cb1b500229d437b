"""What is written where when records are given up (failure-destinations 1–3)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from esm.domain.record import LaneId, Record

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
    name, info = what.batch_info
    document |= {"version": "1.0", "timestamp": iso_milliseconds(what.at), name: info}
    return document


def iso_milliseconds(epoch: float) -> str:
    """``2026-01-01T09:30:00.123Z`` for epoch seconds."""
    # From whole milliseconds: a float such as …00.123 is a hair below its value and would be cut to .122.
    seconds, milliseconds = divmod(round(epoch * 1000), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def iso_seconds(epoch: float) -> str:
    """``2026-01-01T09:30:00Z`` for epoch seconds."""
    return f"{datetime.fromtimestamp(int(epoch), UTC):%Y-%m-%dT%H:%M:%SZ}"
