"""What goes wrong with a lease file is noticed, and said in a sentence."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from esm.domain.errors import LeaseStoreFailed
from esm.domain.leasing import HORIZON, Lease, NewLease
from esm.domain.record import Mark
from esm.leases.lease_file import OwnerLocks, check_place, filesystem
from esm.leases.sqlite import SqliteLeases

pytestmark = pytest.mark.anyio
APP = "app"
MOUNTS = """\
/dev/vda / ext4 rw 0 0
overlay /container overlay rw 0 0
tmpfs /run\\040dir tmpfs rw 0 0
files:/export /mnt/shared nfs4 rw,vers=4.2 0 0
/dev/vdb /mnt/shared/local xfs rw 0 0
short
"""


async def held_by(store: SqliteLeases, owner: str, shard: str = "a") -> Lease:
    await store.create(APP, [NewLease(f"k/{shard}", shard, HORIZON)])
    [seen] = [lease for lease in await store.leases(APP) if lease.shard == shard]
    held = await store.take(seen, owner)
    assert held is not None
    return held


class TestTheFile:
    async def test_is_made_with_its_folder_and_its_absolute_path_is_logged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with capture_logs() as logs:
            async with SqliteLeases("var/deep/esm.db") as store:
                assert await store.leases(APP) == []
        assert (tmp_path / "var/deep/esm.db").exists()
        assert {"event": "lease_file_opened", "log_level": "info", "path": str(tmp_path / "var/deep/esm.db")} in logs

    async def test_keeps_what_was_written_when_it_is_opened_again(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db") as store:
            held = await held_by(store, "w1")
            await store.keep({held.key: (held, Mark((2**185, 1)))})
        async with SqliteLeases(tmp_path / "esm.db") as store:
            [lease] = await store.leases(APP)
        assert (lease.mark, lease.counter) == (Mark((2**185, 1)), 2)

    async def test_that_was_deleted_stops_all_writes(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db") as store:
            held = await held_by(store, "w1")
            (tmp_path / "esm.db").rename(tmp_path / "aside")
            with pytest.raises(LeaseStoreFailed, match=r"esm\.db was deleted while esm was using it"):
                await store.keep({held.key: (held, None)})
            (tmp_path / "aside").rename(tmp_path / "esm.db")
            assert (await store.keep({held.key: (held, None)}))[held.key] is not None, "put back, it is used again"

    async def test_that_was_replaced_stops_all_writes(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db") as store:
            held = await held_by(store, "w1")
            (tmp_path / "esm.db").rename(tmp_path / "aside")
            (tmp_path / "esm.db").touch()
            with pytest.raises(LeaseStoreFailed, match="was replaced by another file"):
                await store.keep({held.key: (held, None)})

    async def test_on_a_full_disk_says_so_and_goes_on_when_there_is_room(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db", largest=64 * 1024) as store:
            held = await held_by(store, "w1")
            many = [NewLease(f"k/{number}", "x" * 1000, HORIZON) for number in range(100)]
            with pytest.raises(LeaseStoreFailed, match=r"esm\.db cannot grow, the disk is full: free some space"):
                await store.create(APP, many)
            assert (await store.keep({held.key: (held, None)}))[held.key] is not None
            assert len(await store.leases(APP)) == 1, "nothing of what failed was kept"

    async def test_that_another_program_locks_is_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esm.leases.sqlite.BUSY_SECONDS", 0.01)
        async with SqliteLeases(tmp_path / "esm.db") as store:
            held = await held_by(store, "w1")
            other = sqlite3.connect(tmp_path / "esm.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            try:
                with pytest.raises(LeaseStoreFailed, match="was locked by another program"):
                    await store.keep({held.key: (held, None)})
            finally:
                other.close()
            assert (await store.keep({held.key: (held, None)}))[held.key] is not None


class TestAFileThatIsNotALeaseFile:
    async def test_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("these are my notes\n" * 100)
        with pytest.raises(LeaseStoreFailed, match=r"notes\.txt is no SQLite database: leases\.sqlite\.path must name"):
            async with SqliteLeases(tmp_path / "notes.txt"):
                pass
        assert (tmp_path / "notes.txt").read_text().startswith("these are my notes")

    async def test_a_database_of_another_program_is_left_as_it_is(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "other.db") as other:
            other.execute("CREATE TABLE things (name)")
        other.close()
        before = (tmp_path / "other.db").read_bytes()
        with pytest.raises(LeaseStoreFailed, match=r"other\.db is a SQLite database of another program"):
            async with SqliteLeases(tmp_path / "other.db"):
                pass
        assert (tmp_path / "other.db").read_bytes() == before

    async def test_one_of_a_newer_version(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db"):
            pass
        newer = sqlite3.connect(tmp_path / "esm.db")
        newer.execute("PRAGMA user_version = 9")
        newer.close()
        with pytest.raises(LeaseStoreFailed, match=r"was written by a newer esm \(format 9; this one knows 1\)"):
            async with SqliteLeases(tmp_path / "esm.db"):
                pass

    async def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(LeaseStoreFailed, match="unable to open database file"):
            async with SqliteLeases(tmp_path):
                pass

    async def test_a_path_through_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LeaseStoreFailed, match=r"cannot be used: (Not a directory|File exists)\."):
            async with SqliteLeases(tmp_path / "file" / "esm.db"):
                pass


class TestThePlace:
    @pytest.mark.parametrize(
        "path,kind",
        [
            ("/var/esm.db", "ext4"),
            ("/container/esm.db", "overlay"),
            ("/run dir/esm.db", "tmpfs"),
            ("/mnt/shared/esm.db", "nfs4"),
            ("/mnt/shared/local/esm.db", "xfs"),
            ("/mnt/shared2/esm.db", "ext4"),
        ],
    )
    def test_is_known_by_the_longest_mount_point(self, path: str, kind: str) -> None:
        assert filesystem(Path(path), MOUNTS) == kind

    def test_on_a_network_disk_is_refused(self) -> None:
        with pytest.raises(LeaseStoreFailed, match=r"on a network file system \(nfs4\), where two workers could own"):
            check_place(Path("/mnt/shared/esm.db"), MOUNTS)

    async def test_on_a_network_disk_is_refused_behind_a_link_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mounted").mkdir()
        (tmp_path / "var").symlink_to(tmp_path / "mounted")
        mounts = f"/dev/vda / ext4 rw 0 0\nfiles:/export {tmp_path}/mounted nfs4 rw 0 0\n"
        monkeypatch.setattr("esm.leases.lease_file._mounts", lambda: mounts)
        with pytest.raises(LeaseStoreFailed, match=r"mounted/esm\.db is on a network file system \(nfs4\)"):
            async with SqliteLeases(tmp_path / "var" / "esm.db"):
                pass
        assert list((tmp_path / "mounted").iterdir()) == []

    @pytest.mark.parametrize("path", ["/container/esm.db", "/run dir/esm.db"])
    def test_that_forgets_is_warned_of(self, path: str) -> None:
        with capture_logs() as logs:
            check_place(Path(path), MOUNTS)
        assert [entry["event"] for entry in logs] == ["lease_file_not_durable"]

    def test_on_a_local_disk_or_an_unknown_system_is_fine(self) -> None:
        with capture_logs() as logs:
            check_place(Path("/var/esm.db"), MOUNTS)
            check_place(Path("/var/esm.db"), "")
        assert logs == []


OWNER = """
import sys
from pathlib import Path
from esm.leases.lease_file import OwnerLocks
OwnerLocks(Path(sys.argv[1])).hold("w1/0/abc")
print("held", flush=True)
sys.stdin.read()
"""


class TestOwners:
    async def test_the_lease_of_a_killed_process_is_free_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "esm.db"
        async with SqliteLeases(path) as store:
            with subprocess.Popen(  # noqa: ASYNC220 - its pipes are read to the line it is known to print
                [sys.executable, "-c", OWNER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as owner:
                assert owner.stdout
                assert owner.stdout.readline() == b"held\n"
                # As the owner would have written it: this store must not hold the owner's lock itself.
                await store.create(APP, [NewLease("k/a", "a", HORIZON)])
                raw = sqlite3.connect(path)
                with raw:
                    raw.execute("UPDATE leases SET owner = 'w1/0/abc', counter = 1")
                raw.close()
                [alive] = await store.leases(APP)
                owner.send_signal(signal.SIGKILL)
            [dead] = await store.leases(APP)
            assert (alive.owner, dead.owner) == ("w1/0/abc", None)
            assert await store.take(dead, "w2/0/def") is not None

    async def test_the_lease_of_a_process_that_left_is_free(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db") as store:
            await held_by(store, "w1")
            [own] = await store.leases(APP)
            async with SqliteLeases(tmp_path / "esm.db") as other:
                [seen] = await other.leases(APP)
            assert (own.owner, seen.owner) == ("w1", "w1")
        async with SqliteLeases(tmp_path / "esm.db") as after:
            [lease] = await after.leases(APP)
        assert lease.owner is None
        assert [name for name in os.listdir(tmp_path) if name.endswith(".lock")] == []

    def test_any_name_makes_a_lock(self, tmp_path: Path) -> None:
        mine, other = OwnerLocks(tmp_path / "esm.db"), OwnerLocks(tmp_path / "esm.db")
        for name in ("pod/../../x", "ü" * 200, "a b", "ü" * 199 + "x"):
            mine.hold(name)
            assert not other.dead(name)
            assert not mine.dead(name)
        mine.close()
        assert other.dead("a b")


class TestAFileThatIsOpenedWhenItIsNeeded:
    async def test_is_neither_made_nor_missed_before_the_first_call(self, tmp_path: Path) -> None:
        async with SqliteLeases(tmp_path / "esm.db", when_needed=True):
            assert not (tmp_path / "esm.db").exists()
        async with SqliteLeases(tmp_path / "esm.db", when_needed=True) as store:
            with capture_logs() as logs:
                assert await store.leases(APP) == []
                assert await store.leases(APP) == []
        assert [log["event"] for log in logs if log["log_level"] == "info"] == ["lease_file_opened"]

    async def test_is_tried_again_by_each_call_while_it_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "esm.db").mkdir()
        async with SqliteLeases(tmp_path / "esm.db", when_needed=True) as store:
            for _ in range(2):
                with pytest.raises(LeaseStoreFailed, match=r"esm\.db cannot be written"):
                    await store.leases(APP)
            (tmp_path / "esm.db").rmdir()
            held = await held_by(store, "w1")
            assert (await store.keep({held.key: (held, None)}))[held.key] is not None
