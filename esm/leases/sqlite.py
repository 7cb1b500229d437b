"""Leases in a SQLite file: for one process or several of one host, on a local disk."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
import msgspec
import structlog
from msgspec.structs import replace

from esm.domain.errors import LeaseStoreFailed
from esm.domain.leasing import Lease, NewLease, Start
from esm.domain.record import Mark
from esm.leases.lease_file import OpenedFile, OwnerLocks, check_place

log = structlog.get_logger()
T = TypeVar("T")

BUSY_SECONDS = 5.0
CLOSE_SECONDS = 6.0
_APPLICATION = 0x45534D31
"""``ESM1``: SQLite's application_id of a lease file."""
_VERSION = 1
_SCHEMA = """
CREATE TABLE leases (
    key TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    shard TEXT NOT NULL,
    counter INTEGER NOT NULL,
    owner TEXT,
    start TEXT NOT NULL,
    mark TEXT,
    parents TEXT NOT NULL,
    children TEXT NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "key, shard, counter, owner, start, mark, parents, children"
_Row = tuple[str, str, int, str | None, str, str | None, str, str]

_decode_mark = msgspec.json.Decoder(Mark).decode
_decode_start = msgspec.json.Decoder(Start).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
# A held lease and its own lost reply: the row is as it was, or one write of the same owner further.
_OURS = "key = ? AND owner = ? AND counter BETWEEN ? AND ? + 1"


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


class SqliteLeases:
    """A LeaseStore; ``async with`` opens the file and makes it and its folder if they are not there.

    The handle is used by one thread at a time, never on the event loop.  ``largest`` bounds the file in bytes.  Leases
    whose owner's process has ended are shown as free.  Opening raises LeaseStoreFailed, as every method does.  With
    ``when_needed`` the first call opens the file, and while that fails each call tries again.
    """

    def __init__(self, path: str | Path, largest: int | None = None, *, when_needed: bool = False) -> None:
        self.path = Path(path).absolute()
        self._largest, self._when_needed = largest, when_needed
        self._connection: sqlite3.Connection | None = None
        self._thread = anyio.CapacityLimiter(1)
        self._locks = OwnerLocks(self.path)

    async def __aenter__(self) -> Self:
        if not self._when_needed:
            with anyio.CancelScope(shield=True):  # a handle that was opened is closed: the busy timeout bounds it
                await anyio.to_thread.run_sync(self._open, limiter=self._thread)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await anyio.to_thread.run_sync(self._close, limiter=self._thread)

    # -- LeaseStore

    async def leases(self, app: str) -> Sequence[Lease]:
        """See LeaseStore."""

        def read(connection: sqlite3.Connection) -> list[Lease]:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM leases WHERE app = ?", (app,))  # noqa: S608 - constants
            return [self._unless_dead(_lease(row)) for row in rows]

        return await self._run(read, writes=False)

    async def others(self, app: str) -> int:
        """See LeaseStore."""

        def count(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "SELECT count(*) FROM leases WHERE app != ? AND mark IS NOT NULL", (app,)
            ).fetchone()
            return int(row[0])

        return await self._run(count, writes=False)

    async def create(self, app: str, leases: Sequence[NewLease]) -> None:
        """See LeaseStore."""
        await self._run(lambda connection: _create(connection, app, leases))

    async def take(self, seen: Lease, owner: str) -> Lease | None:
        """See LeaseStore."""

        def write(connection: sqlite3.Connection) -> Lease | None:
            self._locks.hold(owner)
            row = connection.execute(
                "UPDATE leases SET owner = ?, counter = ? "  # noqa: S608 - constants
                f"WHERE key = ? AND (counter = ? OR (counter = ? AND owner = ?)) RETURNING {_COLUMNS}",
                (owner, seen.counter + 1, seen.key, seen.counter, seen.counter + 1, owner),
            ).fetchone()
            return _lease(row) if row else None

        return await self._run(write)

    async def keep(self, held: Mapping[str, tuple[Lease, Mark | None]]) -> Mapping[str, Lease | None]:
        """See LeaseStore."""
        return await self._run(
            lambda connection: {key: _keep(connection, lease, mark) for key, (lease, mark) in held.items()}
        )

    async def finish(self, held: Lease, mark: Mark, children: Sequence[NewLease]) -> Lease | None:
        """See LeaseStore."""
        return await self._run(lambda connection: _finish(connection, held, mark, children))

    async def give_up(self, held: Lease) -> None:
        """See LeaseStore."""
        await self._run(
            lambda connection: connection.execute(
                f"UPDATE leases SET owner = NULL, counter = counter + 1 WHERE {_OURS}",  # noqa: S608 - constants
                (held.key, held.owner, held.counter, held.counter),
            )
        )

    async def delete(self, seen: Lease) -> bool:
        """See LeaseStore."""

        def write(connection: sqlite3.Connection) -> bool:
            connection.execute(
                "DELETE FROM leases WHERE key = ? AND counter = ? AND owner IS NULL", (seen.key, seen.counter)
            )
            return connection.execute("SELECT 1 FROM leases WHERE key = ?", (seen.key,)).fetchone() is None

        return await self._run(write)

    def _unless_dead(self, lease: Lease) -> Lease:
        return replace(lease, owner=None) if lease.owner and self._locks.dead(lease.owner) else lease

    # -- all below runs in the thread

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        return await anyio.to_thread.run_sync(self._transaction, work, writes, limiter=self._thread)

    def _transaction(self, work: Callable[[sqlite3.Connection], T], writes: bool) -> T:
        connection = self._connection or self._open()
        self._file.check()
        try:
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            result = work(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        finally:
            if connection.in_transaction:  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
        return result

    def _open(self) -> sqlite3.Connection:
        check_place(self.path.resolve())  # a link may lead to another disk
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Another thread of the pool may run the next transaction, never two at once: the limiter sees to that.
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        try:
            self._prepare(connection)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise self._failed(error) from error
        except LeaseStoreFailed:
            connection.close()
            raise
        self._connection, self._file = connection, OpenedFile(self.path)
        log.info("lease_file_opened", path=str(self.path))
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table in a new file; refuse one that is not ours before anything is written to it."""
        self._check_version(connection)
        mode = _pragma(connection, "journal_mode = WAL")
        if mode != "wal":
            raise LeaseStoreFailed(
                f"The lease file {self.path} cannot keep a write-ahead log (journal mode {mode}): use a local disk."
            )
        _pragma(connection, "synchronous = NORMAL")  # a power cut may cost the last checkpoints: they are read again
        if self._largest is not None:
            _pragma(connection, f"max_page_count = {self._largest // int(str(_pragma(connection, 'page_size')))}")
        connection.execute("BEGIN IMMEDIATE")
        if _pragma(connection, "user_version") == 0:  # another process may have been quicker
            connection.execute(_SCHEMA)
            connection.execute("CREATE INDEX leases_by_app ON leases (app)")
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")

    def _check_version(self, connection: sqlite3.Connection) -> None:
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        used = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 0
        if used and application != _APPLICATION:
            raise LeaseStoreFailed(
                f"{self.path} is a SQLite database of another program: leases.sqlite.path must name a lease file of "
                "esm, or one that does not exist yet."
            )
        if isinstance(version, int) and version > _VERSION:
            raise LeaseStoreFailed(
                f"The lease file {self.path} was written by a newer esm (format {version}; this one knows {_VERSION}): "
                "run that version again, or name another file."
            )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._locks.close()

    def _failed(self, error: sqlite3.Error | OSError) -> LeaseStoreFailed:
        where = f"The lease file {self.path}"
        match getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").partition("_")[0]:
            case "FULL":
                return LeaseStoreFailed(f"{where} cannot grow, the disk is full: free some space.")
            case "BUSY":
                return LeaseStoreFailed(f"{where} was locked by another program for more than {BUSY_SECONDS:.0f} s.")
            case "NOTADB":
                return LeaseStoreFailed(
                    f"{self.path} is no SQLite database: leases.sqlite.path must name a lease file of esm, or one that "
                    "does not exist yet."
                )
            case "CORRUPT":
                return LeaseStoreFailed(f"{where} is damaged ({error}): restore it, or name another one.")
            case "READONLY" | "CANTOPEN" | "PERM":
                return LeaseStoreFailed(f"{where} cannot be written ({error}): check who owns file and folder.")
            case _:
                why = error.strerror if isinstance(error, OSError) and error.strerror else error
                return LeaseStoreFailed(f"{where} cannot be used: {why}.")


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    row = connection.execute(f"PRAGMA {text}").fetchone()
    return row[0] if row else None


def _lease(row: _Row) -> Lease:
    key, shard, counter, owner, start, mark, parents, children = row
    return Lease(
        key,
        shard,
        counter,
        owner,
        _decode_start(start),
        _decode_mark(mark) if mark else None,
        _decode_names(parents),
        _decode_names(children),
    )


def _create(connection: sqlite3.Connection, app: str, leases: Sequence[NewLease]) -> None:
    connection.executemany(
        "INSERT INTO leases (key, app, shard, counter, start, parents, children) "
        "VALUES (?, ?, ?, 0, ?, ?, '[]') "
        "ON CONFLICT DO NOTHING",
        [(new.key, app, new.shard, _text(new.start), _text(new.parents)) for new in leases],
    )


def _keep(connection: sqlite3.Connection, held: Lease, mark: Mark | None) -> Lease | None:
    row = connection.execute(
        "UPDATE leases SET counter = counter + 1, mark = coalesce(?, mark) "  # noqa: S608 - constants
        f"WHERE {_OURS} RETURNING counter, mark",
        (_text(mark) if mark else None, held.key, held.owner, held.counter, held.counter),
    ).fetchone()
    if row is None:
        return None
    if row[0] == held.counter + 1:
        return replace(held, counter=row[0], mark=mark or held.mark)
    return replace(held, counter=row[0], mark=_decode_mark(row[1]) if row[1] else None)


def _finish(connection: sqlite3.Connection, held: Lease, mark: Mark, children: Sequence[NewLease]) -> Lease | None:
    found = connection.execute(f"SELECT app, {_COLUMNS} FROM leases WHERE key = ?", (held.key,)).fetchone()  # noqa: S608 - constants
    if found is None:
        return None
    before = _lease(found[1:])
    if before.ended and before.counter == held.counter + 1:  # its own lost reply
        return before
    _create(connection, found[0], children)
    row = connection.execute(
        "UPDATE leases SET owner = NULL, counter = counter + 1, mark = ?, children = ? "  # noqa: S608 - constants
        f"WHERE {_OURS} RETURNING {_COLUMNS}",
        (_text(mark), _text([child.shard for child in children]), held.key, held.owner, held.counter, held.counter),
    ).fetchone()
    return _lease(row) if row else None
