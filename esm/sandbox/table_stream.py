"""The change stream of a DynamoDB table: shards that roll over, records, trimming; no protocol here."""

import datetime
import hashlib
from collections.abc import Sequence

from esm.sandbox.attributes import Item, size_of_item
from esm.sandbox.shardlog import Entry, GeneratedLog, ShardLog, StoredLog
from esm.sandbox.wire import encoded
from esm.sandbox.world import World

RETENTION = 24 * 3600.0
SLOTS = 64
FIRST_NUMBER = 999_999_999_999_999_990_000
"""So that numbers soon grow by a digit: who compares them as text is found out."""


class StreamShard:
    """One shard; ``parent`` is the id of the shard that it continues, ``closed_at`` epoch seconds or None."""

    def __init__(self, ordinal: int, first_number: int, at: float, parent: str | None) -> None:
        digest = hashlib.md5(f"{ordinal}:{at}".encode(), usedforsecurity=False).hexdigest()
        self.id = f"shardId-{int(at * 1000):020d}-{ordinal:04x}{digest[:4]}"
        self.parent = parent
        self.opened_at = at
        self.closed_at: float | None = None
        self.log: ShardLog = StoredLog()
        self._first = first_number + ordinal % SLOTS

    def number(self, index: int) -> int:
        """The sequence number of the record at ``index``: rising within the shard, above all of its parent's."""
        return self._first + (index + 1) * SLOTS

    def index(self, number: int) -> int | None:
        """The index of a sequence number (−1: the start of the shard); None for one of another shard."""
        index, rest = divmod(number - self._first, SLOTS)
        return index - 1 if rest == 0 and index >= 0 else None

    def ending(self, now: float) -> int | None:
        """The number of its last record once it is closed."""
        return None if self.closed_at is None else self.number(self.log.tip(now) - 1)


class TableStream:
    """The stream of a table.  The attributes below are switches for tests.

    ``iterator_seconds``: life of an iterator.  ``roll_after``: age in seconds at which a shard ends and a child opens
    (AWS: about four hours); None: only by ``roll``.
    """

    def __init__(self, table: str, keys: Sequence[str], view: str, shards: int, world: World) -> None:
        now = world.clock.now()
        self.table = table
        self.keys = tuple(keys)
        self.view = view
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        self.label = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}"
        self.arn = f"arn:aws:dynamodb:{world.region}:{world.account}:table/{table}/stream/{self.label}"
        self.identity = world.uuid()[:13]
        self.created_at = now
        self.enabled = True
        self.iterator_seconds = 900.0
        self.roll_after: float | None = None
        self._world = world
        self._clock = world.clock
        self._shards: dict[str, StreamShard] = {}
        self._open: list[StreamShard] = []
        self._ordinal = 0
        for _ in range(shards):
            self._open.append(self._add(None))

    def shards(self) -> list[StreamShard]:
        """All shards that are still listed, parents before children."""
        self.refresh()
        return list(self._shards.values())

    def shard(self, shard_id: str) -> StreamShard | None:
        """The shard of this id; None when it is not listed."""
        self.refresh()
        return self._shards.get(shard_id)

    def open_shards(self) -> list[StreamShard]:
        """The shards that take records."""
        self.refresh()
        return list(self._open)

    def children(self, shard_id: str) -> list[StreamShard]:
        """The shards that continue ``shard_id``."""
        return [shard for shard in self.shards() if shard.parent == shard_id]

    def write(self, key: Item, old: Item | None, new: Item | None, *, by_ttl: bool = False) -> None:
        """Record a change of the item of ``key``; nothing when it changed nothing."""
        if not self.enabled or old == new:
            return
        self.refresh()
        now = self._clock.now()
        digest = hashlib.md5(encoded(key), usedforsecurity=False).digest()
        shard = self._open[int.from_bytes(digest[:8], "big") * len(self._open) >> 64]
        log = shard.log
        if not isinstance(log, StoredLog):
            raise ValueError(f"{shard.id} of table {self.table} is generated; it takes no written records")
        log.append(self._entry(shard.number(log.tip(now)), key, old, new, now, by_ttl=by_ttl))

    def roll(self, shard_id: str | None = None, *, children: int = 1) -> list[StreamShard]:
        """End a shard (None: every open one) and open ``children`` for each; answers those."""
        self.refresh()
        return self._roll([shard for shard in self._open if shard_id in (None, shard.id)], children)

    def trim(self, shard_id: str, count: int) -> None:
        """Move the horizon of a shard forward by ``count`` records."""
        shard = self._shards[shard_id]
        shard.log.trim(shard.log.horizon + count)

    def forget(self, shard_id: str) -> None:
        """Remove a closed shard from every listing, as AWS does after 24 hours."""
        if self._shards[shard_id].closed_at is None:
            raise ValueError(f"{shard_id} is open; only a closed shard can be forgotten")
        del self._shards[shard_id]

    def disable(self) -> None:
        """End the stream: every shard closes without a child."""
        self.enabled = False
        for shard in self._open:
            shard.closed_at = self._clock.now()
        self._open.clear()

    def generate(self, per_shard: int, *, size: int = 1024, rate: float | None = None) -> None:
        """Let each open shard that is still empty hold ``per_shard`` insertions of about ``size`` bytes.

        They are made when read.  The key attribute is ``item-<index>``; ``rate`` records a second arrive per
        shard, or all at once.
        """
        now = self._clock.now()
        for shard in self._open:
            if shard.log.tip(now):
                raise ValueError(
                    f"{shard.id} of table {self.table} holds records already; generate into an empty shard"
                )
            pad = "x" * max(0, size - 40)

            def make(index: int, at: float, shard: StreamShard = shard, pad: str = pad) -> Entry:
                key: Item = {name: {"S": f"item-{index}"} for name in self.keys}
                new: Item = {**key, "shard": {"S": shard.id}, "n": {"N": str(index)}, "pad": {"S": pad}}
                return self._entry(shard.number(index), key, None, new, at)

            shard.log = GeneratedLog(make, per_shard, now, rate)

    def refresh(self) -> None:
        """Roll and forget what is due by age."""
        now = self._clock.now()
        if self.roll_after is not None:
            self._roll([shard for shard in self._open if now - shard.opened_at >= self.roll_after], 1)
        horizon = now - RETENTION
        if horizon <= self.created_at:
            return
        for shard in list(self._shards.values()):
            shard.log.trim(shard.log.first_at(horizon, now))
            if shard.closed_at is not None and shard.closed_at < horizon:
                del self._shards[shard.id]

    def _roll(self, parents: Sequence[StreamShard], children: int) -> list[StreamShard]:
        opened: list[StreamShard] = []
        for parent in parents:
            parent.closed_at = self._clock.now()
            self._open.remove(parent)
            opened += [self._add(parent) for _ in range(children)]
        self._open += opened
        return opened

    def _add(self, parent: StreamShard | None) -> StreamShard:
        now = self._clock.now()
        first = FIRST_NUMBER if parent is None else parent.number(parent.log.tip(now)) // SLOTS * SLOTS + SLOTS
        shard = StreamShard(self._ordinal, first, now, None if parent is None else parent.id)
        self._ordinal += 1
        self._shards[shard.id] = shard
        return shard

    def _entry(
        self, number: int, key: Item, old: Item | None, new: Item | None, at: float, *, by_ttl: bool = False
    ) -> Entry:
        event = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
        images: dict[str, Item] = {}
        if new is not None and self.view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["NewImage"] = new
        if old is not None and self.view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["OldImage"] = old
        size = size_of_item(key) + sum(size_of_item(image) for image in images.values())
        record: dict[str, object] = {
            "eventID": hashlib.md5(f"{self.arn}{number}".encode(), usedforsecurity=False).hexdigest(),
            "eventName": event,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self._world.region,
            "dynamodb": {
                "ApproximateCreationDateTime": float(int(at)),
                "Keys": key,
                **images,
                "SequenceNumber": str(number),
                "SizeBytes": size,
                "StreamViewType": self.view,
            },
        }
        if by_ttl:
            record["userIdentity"] = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
        return Entry(encoded(record), at, size)
