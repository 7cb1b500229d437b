"""The events of AWS (event-formats 1–5), to the last member, as patterns that a whole event has to fit."""

import base64
import hashlib
import re
from collections.abc import Mapping

Pattern = object
"""A type, a compiled expression, a dict or list of patterns, or a value."""

DIGITS = re.compile(r"\d+")
MILLISECONDS = re.compile(r"\d{13}")
HEX = re.compile(r"[0-9a-f]{32}")


def misfits(event: object, pattern: Pattern, at: str = "event") -> list[str]:
    """Where ``event`` differs from ``pattern``: members that are missing, that nobody expects, or of another kind."""
    match pattern:
        case dict():
            return _members(event, pattern, at)
        case list():
            if not isinstance(event, list) or not event:
                return [f"{at} is {event!r}, expected a list"]
            return [each for number, item in enumerate(event) for each in misfits(item, pattern[0], f"{at}[{number}]")]
        case re.Pattern():
            fits = isinstance(event, str) and pattern.fullmatch(event) is not None
        case type():
            fits = type(event) is pattern
        case _:
            fits = event == pattern and type(event) is type(pattern)
    return [] if fits else [f"{at} is {event!r}, expected {pattern!r}"]


def _members(event: object, pattern: Mapping[str, Pattern], at: str) -> list[str]:
    if not isinstance(event, dict):
        return [f"{at} is {event!r}, expected an object"]
    found = [f"{at}.{name} is missing" for name in pattern.keys() - event.keys()]
    found += [f"{at}.{name} is none of AWS's" for name in event.keys() - pattern.keys()]
    for name in pattern.keys() & event.keys():
        found += misfits(event[name], pattern[name], f"{at}.{name}")
    return found


def sqs(arn: str) -> Pattern:
    """Messages without attributes."""
    record = {
        "messageId": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        "receiptHandle": str,
        "body": str,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": MILLISECONDS,
            "SenderId": str,
            "ApproximateFirstReceiveTimestamp": MILLISECONDS,
        },
        "messageAttributes": {},
        "md5OfBody": HEX,
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "eu-west-1",
    }
    return {"Records": [record]}


def kinesis(arn: str, account: str) -> Pattern:
    """Records of a stream."""
    record = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": str,
            "sequenceNumber": DIGITS,
            "data": str,
            "approximateArrivalTimestamp": float,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": re.compile(r"shardId-\d{12}:\d+"),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": re.compile(rf"arn:aws:iam::{account}:role/.+"),
        "awsRegion": "eu-west-1",
        "eventSourceARN": arn,
    }
    return {"Records": [record]}


def dynamodb(arn: str, item: Pattern) -> Pattern:
    """Items that were put for the first time; the stream has new and old images."""
    record = {
        "eventID": HEX,
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": float,
            "Keys": {"pk": {"S": str}},
            "NewImage": item,
            "SequenceNumber": DIGITS,
            "SizeBytes": int,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
        "eventSourceARN": arn,
    }
    return {"Records": [record]}


def kafka(bootstrap: str, lane: str, partition: int) -> Pattern:
    """Records of one partition of a self-managed cluster, with a key and a header."""
    record = {
        "topic": lane.removesuffix(f"-{partition}"),
        "partition": partition,
        "offset": int,
        "timestamp": int,
        "timestampType": "CREATE_TIME",
        "key": base64.b64encode(b"k").decode(),
        "value": str,
        "headers": [{"trace": [int]}],
    }
    return {"eventSource": "SelfManagedKafka", "bootstrapServers": bootstrap, "records": {lane: [record]}}


def md5(text: str) -> str:
    """As SQS tells it."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
