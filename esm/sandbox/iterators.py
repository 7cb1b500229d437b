"""Shard iterators: opaque text that holds a position, for Kinesis and DynamoDB Streams alike."""

import base64
import binascii

import msgspec


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a reader stands: stream, its identity (a re-created stream has another), shard, next index, made when."""

    arn: str
    identity: str
    shard: str
    index: int
    at: float


_PREFIX = "AAAAAAAAAA"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Position)


def sealed(position: Position) -> str:
    """The iterator of ``position``."""
    return _PREFIX + base64.b64encode(_encoder.encode(position)).decode()


def unsealed(iterator: str) -> Position | None:
    """The position of ``iterator``; None when it is none of ours."""
    if not iterator.startswith(_PREFIX):
        return None
    try:
        return _decoder.decode(base64.b64decode(iterator[len(_PREFIX) :]))
    except (binascii.Error, msgspec.DecodeError):
        return None
