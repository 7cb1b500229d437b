"""A table of DynamoDB: items by key, changes into its stream; no protocol here."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from esm.sandbox.attributes import Canon, Item, canon, size_of_item
from esm.sandbox.table_stream import TableStream
from esm.sandbox.wire import AwsError
from esm.sandbox.world import World

MAX_ITEM = 400 * 1024

Key = tuple[Canon, ...]


class Index(msgspec.Struct, frozen=True):
    """A secondary index: its name and key attributes."""

    name: str
    keys: tuple[str, ...]


class Table:
    """Items by key.  ``keys`` are the attributes of the key (hash, then range), with their types."""

    def __init__(self, name: str, keys: Mapping[str, str], world: World, indexes: Sequence[Index] = ()) -> None:
        self.name = name
        self.arn = f"arn:aws:dynamodb:{world.region}:{world.account}:table/{name}"
        self.keys = dict(keys)
        self.indexes = {index.name: index for index in indexes}
        self.created_at = world.clock.now()
        self.identity = world.uuid()
        self.ttl_attribute: str | None = None
        self.stream: TableStream | None = None
        self._world = world
        self._items: dict[Key, Item] = {}
        self._order: list[tuple[bytes, Key]] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def enable_stream(self, view: str = "NEW_AND_OLD_IMAGES", *, shards: int = 1) -> TableStream:
        """Start a stream with ``shards`` open shards; ``view`` is AWS's StreamViewType."""
        self.stream = TableStream(self.name, list(self.keys), view, shards, self._world)
        return self.stream

    # -- items

    def put(self, item: Item) -> Item | None:
        """Store ``item`` in place of the one with its key; answers that one."""
        return self.write(self.key_of(item, whole=False), lambda _old: item)

    def get(self, key: Item) -> Item | None:
        """The item of ``key``."""
        return self._items.get(self._checked(key))

    def delete(self, key: Item, *, by_ttl: bool = False) -> Item | None:
        """Remove the item of ``key``; answers it.  ``by_ttl`` marks the change as made by the service."""
        return self.write(key, lambda _old: None, by_ttl=by_ttl)

    def expire(self) -> int:
        """Delete every item whose TTL attribute lies in the past, as the service does; answers how many."""
        name, now = self.ttl_attribute, self._world.clock.now()
        if name is None:
            return 0
        due = [item for item in self._items.values() if "N" in item.get(name, {}) and float(item[name]["N"]) < now]
        for item in due:
            self.delete(self.key_of(item, whole=False), by_ttl=True)
        return len(due)

    def write(self, key: Item, change: Callable[[Item | None], Item | None], *, by_ttl: bool = False) -> Item | None:
        """Replace the item of ``key`` by what ``change`` makes of it (None: nothing is left); answers the old one.

        Raises AwsError for a key that does not fit the table or an item that is too large; then nothing changed.
        """
        name = self._checked(key)
        old = self._items.get(name)
        new = change(old)
        if new is not None and size_of_item(new) > MAX_ITEM:
            raise AwsError("ValidationException", "Item size has exceeded the maximum allowed size")
        if new is None:
            self._items.pop(name, None)
        else:
            self._items[name] = new
        if (old is None) != (new is None):
            self._order = None
        if self.stream is not None:
            self.stream.write({one: (new or old or key)[one] for one in self.keys}, old, new, by_ttl=by_ttl)
        return old

    def key_of(self, item: Item, *, whole: bool) -> Item:
        """The key attributes of ``item``; ``whole``: it must hold no more.  Raises AwsError when one is missing."""
        missing = [name for name in self.keys if name not in item]
        if missing:
            message = f"One of the required keys was not given a value: Missing the key {missing[0]} in the item"
            raise AwsError("ValidationException", message)
        if whole and len(item) != len(self.keys):
            raise AwsError("ValidationException", "The provided key element does not match the schema")
        return {name: item[name] for name in self.keys}

    def in_scan_order(self) -> Iterable[tuple[Key, Item]]:
        """All items in the order of a scan: by a hash of the key, the same for every page."""
        if self._order is None:
            self._order = sorted((place_of(key), key) for key in self._items)
        return [(key, self._items[key]) for _, key in self._order]

    def canonical(self, key: Item) -> Key:
        """The comparable form of a key."""
        return tuple(canon(key[name]) for name in self.keys)

    def _checked(self, key: Item) -> Key:
        self.key_of(key, whole=True)
        for name, kind in self.keys.items():
            if kind not in key[name]:
                message = f"One or more parameter values were invalid: Type mismatch for key {name} expected: {kind}"
                raise AwsError("ValidationException", f"{message} actual: {next(iter(key[name]), '')}")
            if key[name][kind] == "":
                message = "One or more parameter values are not valid. The AttributeValue for a key attribute cannot "
                raise AwsError("ValidationException", f"{message}contain an empty string value. Key: {name}")
        return self.canonical(key)


def place_of(key: Key) -> bytes:
    """Where a key stands in the order of a scan."""
    return hashlib.md5(repr(key).encode(), usedforsecurity=False).digest()
