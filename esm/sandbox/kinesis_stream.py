"""The streams behind Kinesis: shards with parents and hash ranges, splits, merges; no protocol here."""

import base64
import bisect
import hashlib
import json
import math
from collections.abc import Iterable, Sequence

from esm.sandbox.shardlog import Entry, GeneratedLog, ShardLog, StoredLog
from esm.sandbox.wire import AwsError
from esm.sandbox.world import World

HASH_KEYS = 1 << 128
READS_PER_SECOND = 5
BYTES_PER_SECOND = 2 * 1024 * 1024


class Sequencer:
    """Sequence numbers of one shard, laid out as AWS's: 56 decimal digits, rising, with gaps, unlike other shards'.

    From the top: a version digit, the creation second of the shard (36 bits), a part of the shard number (4), the index
    (64), the arrival second (44), the shard number (32), a version digit.
    """

    def __init__(self, shard: int, created: int) -> None:
        self._shard = shard
        self._head = ((0x2 << 36 | created) << 4) | (shard & 0xF)
        self._tail = (shard & 0xFFFFFFFF) << 4 | 0x2

    def number(self, index: int, at: float) -> int:
        """The number of the record at ``index`` that arrived at ``at``; index −1 starts the shard."""
        return ((self._head << 64 | (index + 1)) << 44 | int(at)) << 36 | self._tail

    def index(self, number: int) -> int | None:
        """The index that ``number`` was made for (−1: the start of the shard); None for a number of another shard."""
        if number >> 144 != self._head or number & 0xFFFFFFFFF != self._tail:
            return None
        return (number >> 80 & 0xFFFFFFFFFFFFFFFF) - 1


class Shard:
    """One shard.  ``opened_at`` and ``closed_at`` are epoch seconds; ``ending`` is None while it is open."""

    def __init__(
        self, number: int, hash_range: tuple[int, int], at: float, created: int, parents: Sequence[str]
    ) -> None:
        self.id = f"shardId-{number:012d}"
        self.start_hash, self.end_hash = hash_range
        self.parents = tuple(parents)
        self.children: list[Shard] = []
        self.opened_at = at
        self.created = created
        self.closed_at: float | None = None
        self.log: ShardLog = StoredLog()
        self.sequencer = Sequencer(number, created)
        self.starting = self.sequencer.number(-1, at)
        self.ending: int | None = None
        self._budget = float(BYTES_PER_SECOND)
        self._budget_at = at
        self._reads: list[float] = []

    @property
    def open(self) -> bool:
        """Whether it takes new records."""
        return self.closed_at is None

    def put(self, key: str, data: bytes, at: float) -> str:
        """Append a record; answers its sequence number."""
        log = self.log
        if not isinstance(log, StoredLog):
            raise AwsError("InvalidArgumentException", f"{self.id} is generated: nothing can be put into it.")
        number = self.sequencer.number(log.tip(at), at)
        log.append(entry_of(number, key, data, at))
        return str(number)

    def close(self, at: float, children: Iterable["Shard"]) -> None:
        """End the shard; ``children`` go on."""
        self.closed_at = at
        self.children = list(children)
        self.ending = self.sequencer.number(self.log.tip(at), at)

    def take_read(self, now: float) -> bool:
        """Count a read against 5 reads and 2 MiB a second; False when that is exceeded."""
        self._reads = [one for one in self._reads if one > now - 1.0]
        self._budget = min(BYTES_PER_SECOND, self._budget + (now - self._budget_at) * BYTES_PER_SECOND)
        self._budget_at = now
        if len(self._reads) >= READS_PER_SECOND or self._budget <= 0:
            return False
        self._reads.append(now)
        return True

    def took(self, size: int) -> None:
        """Count ``size`` bytes against the 2 MiB a second; ten MiB make the next four seconds fail."""
        self._budget -= size


class Stream:
    """A data stream.  The attributes below are switches for tests.

    ``enforce_limits``: 5 reads and 2 MiB a second per shard, off at first.  ``iterator_seconds``: life of an iterator.
    ``trimmed_is_error``: a position older than the horizon is InvalidArgumentException instead of the oldest record.
    """

    def __init__(self, name: str, shards: int, world: World, retention_hours: int = 24) -> None:
        self.name = name
        self.arn = f"arn:aws:kinesis:{world.region}:{world.account}:stream/{name}"
        self.created_at = world.clock.now()
        self.retention_hours = retention_hours
        self.enforce_limits = False
        self.iterator_seconds = 300.0
        self.trimmed_is_error = False
        self.identity = world.uuid()[:13]
        self._world = world
        self._clock = world.clock
        self._shards: dict[str, Shard] = {}
        self._open: list[Shard] = []
        self._number = 0
        step = HASH_KEYS // shards
        for index in range(shards):
            end = HASH_KEYS - 1 if index == shards - 1 else (index + 1) * step - 1
            self._add((index * step, end), ())

    def shards(self) -> list[Shard]:
        """All shards that are still listed, by id."""
        self._apply_retention()
        return list(self._shards.values())

    def shard(self, shard_id: str) -> Shard:
        """The shard of this id.  Raises AwsError (ResourceNotFoundException)."""
        self._apply_retention()
        found = self._shards.get(shard_id)
        if found is None:
            message = f"Shard {shard_id} in stream {self.name} under account {self._world.account} does not exist"
            raise AwsError("ResourceNotFoundException", message)
        return found

    def open_shards(self) -> list[Shard]:
        """The shards that take records, by hash key."""
        return list(self._open)

    # -- records

    def put(self, key: str, data: bytes, explicit_hash: int | None = None) -> tuple[str, str]:
        """Append a record to the shard of its key; answers shard id and sequence number."""
        position = explicit_hash
        if position is None:
            position = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")
        index = bisect.bisect_right(self._open, position, key=lambda shard: shard.start_hash) - 1
        shard = self._open[index]
        at = math.floor(self._clock.now() * 1000) / 1000  # arrival times have milliseconds, no more
        return shard.id, shard.put(key, data, at)

    def put_many(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Append (partition key, data) pairs without HTTP."""
        for key, data in records:
            self.put(key, data)

    def generate(self, per_shard: int, *, size: int = 1024, rate: float | None = None, keys: int = 1000) -> None:
        """Let each open shard that is still empty hold ``per_shard`` records of ``size`` bytes that are made when read.

        Data is ``{"shard": id, "n": index, "pad": …}``; ``rate`` records a second arrive per shard, or all at once.
        Nothing is stored, so memory stays the same whatever is read.
        """
        now = self._clock.now()
        for shard in self._open:
            if shard.log.tip(now):
                raise ValueError(f"{shard.id} of {self.name} holds records already; generate into an empty shard")
            shard.log = GeneratedLog(Maker(shard, size, keys), per_shard, now, rate)

    # -- shards

    def split(self, shard_id: str, at_hash: int | None = None) -> list[Shard]:
        """Close a shard and open two children; ``at_hash`` starts the second (default: the middle)."""
        parent = self._open_shard(shard_id)
        middle = (parent.start_hash + parent.end_hash + 1) // 2 if at_hash is None else at_hash
        if not parent.start_hash < middle <= parent.end_hash:
            message = f"NewStartingHashKey {middle} used in SplitShard() on shard {shard_id} is out of its range."
            raise AwsError("InvalidArgumentException", message)
        ranges = [(parent.start_hash, middle - 1), (middle, parent.end_hash)]
        return self._replace([parent], ranges)

    def merge(self, shard_id: str, adjacent_id: str) -> Shard:
        """Close two adjacent shards and open their child."""
        first, second = self._open_shard(shard_id), self._open_shard(adjacent_id)
        low, high = sorted((first, second), key=lambda shard: shard.start_hash)
        if low.end_hash + 1 != high.start_hash:
            message = f"Shards {shard_id} and {adjacent_id} in stream {self.name} are not an adjacent pair."
            raise AwsError("InvalidArgumentException", message)
        return self._replace([first, second], [(low.start_hash, high.end_hash)])[0]

    def trim(self, shard_id: str, count: int) -> None:
        """Move the horizon of a shard forward by ``count`` records."""
        shard = self.shard(shard_id)
        shard.log.trim(shard.log.horizon + count)

    def forget(self, shard_id: str) -> None:
        """Remove a closed shard from every listing, as AWS does when its retention is over."""
        if self.shard(shard_id).open:
            raise ValueError(f"{shard_id} is open; only a closed shard can be forgotten")
        del self._shards[shard_id]

    def _open_shard(self, shard_id: str) -> Shard:
        shard = self.shard(shard_id)
        if not shard.open:
            message = f"Shard {shard_id} in stream {self.name} is not in an open state."
            raise AwsError("InvalidArgumentException", message)
        return shard

    def _replace(self, parents: Sequence[Shard], ranges: Iterable[tuple[int, int]]) -> list[Shard]:
        ids = [parent.id for parent in parents]
        created = max(parent.created for parent in parents) + 1  # so that a child's numbers are above its parents'
        children = [self._add(hash_range, ids, created) for hash_range in ranges]
        for parent in parents:
            parent.close(self._clock.now(), children)
            self._open.remove(parent)
        return children

    def _add(self, hash_range: tuple[int, int], parents: Sequence[str], created: int = 0) -> Shard:
        now = self._clock.now()
        shard = Shard(self._number, hash_range, now, max(created, int(now)), parents)
        self._number += 1
        self._shards[shard.id] = shard
        bisect.insort(self._open, shard, key=lambda one: one.start_hash)
        return shard

    def _apply_retention(self) -> None:
        now = self._clock.now()
        horizon = now - self.retention_hours * 3600
        if horizon <= self.created_at:
            return
        for shard in list(self._shards.values()):
            shard.log.trim(shard.log.first_at(horizon, now))
            if shard.closed_at is not None and shard.closed_at < horizon:
                del self._shards[shard.id]


class Maker:
    """Makes the records of a generated shard: JSON with the shard and the index, padded to ``size`` bytes."""

    def __init__(self, shard: Shard, size: int, keys: int) -> None:
        self._sequencer = shard.sequencer
        self._keys = keys
        self._size = size
        head = f'{{"shard": "{shard.id}", "n": '
        head += " " * (-(len(head) + 10) % 3)  # so that head and number are whole groups of base64
        self._head = head
        self._tail = base64.b64encode(b', "pad": "' + b"x" * max(0, size - len(head) - 22) + b'"}').decode()

    def __call__(self, index: int, at: float) -> Entry:
        data = base64.b64encode(f"{self._head}{index:10d}".encode()).decode()
        text = (
            f'{{"SequenceNumber":"{self._sequencer.number(index, at)}","ApproximateArrivalTimestamp":{at:.3f},'
            f'"Data":"{data}{self._tail}","PartitionKey":"key-{index % self._keys}"}}'
        )
        return Entry(text.encode(), at, self._size)


def entry_of(number: int, key: str, data: bytes, at: float) -> Entry:
    """A stored record."""
    text = (
        f'{{"SequenceNumber":"{number}","ApproximateArrivalTimestamp":{at:.3f},'
        f'"Data":"{base64.b64encode(data).decode()}","PartitionKey":{json.dumps(key)}}}'
    )
    return Entry(text.encode(), at, len(data) + len(key.encode()))
