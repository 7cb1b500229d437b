"""The file that SQLite leases live in: where it may be, whether it is still there, whose process is alive."""

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import structlog

from esm.domain.errors import LeaseStoreFailed

log = structlog.get_logger()

_NETWORK = frozenset(
    (
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "davfs",
            "glusterfs",
            "gpfs",
            "lustre",
            "ncpfs",
            "nfs",
            "nfs4",
            "smb3",
        ),
        *("smbfs", "fuse.ceph", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs"),
        "fuse.sshfs",
    )
)
_FORGETFUL = frozenset(("aufs", "overlay", "ramfs", "tmpfs"))


def filesystem(path: Path, mounts: str) -> str | None:
    """Type of the file system that holds ``path`` (absolute), by the text of ``/proc/mounts``; None = not known."""
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")  # a space is written \040
        if path.is_relative_to(point) and (best is None or len(point) >= best[0]):
            best = (len(point), fields[2])
    return best[1] if best else None


def check_place(path: Path, mounts: str | None = None) -> None:
    """Raise LeaseStoreFailed where SQLite's locks cannot be trusted; warn where the file will not outlive a restart."""
    kind = filesystem(path, _mounts() if mounts is None else mounts)
    if kind in _NETWORK:
        raise LeaseStoreFailed(
            f"The lease file {path} is on a network file system ({kind}), where two workers could own one shard: "
            "set leases.sqlite.path to a local disk."
        )
    if kind in _FORGETFUL:
        log.warning(
            "lease_file_not_durable",
            path=str(path),
            filesystem=kind,
            advice="positions are lost with this container or at a restart: set leases.sqlite.path to a volume",
        )


def _mounts() -> str:
    with suppress(OSError):  # not Linux: nothing is known
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    return ""


class OpenedFile:
    """Notices that the path no longer leads to the file that was opened.

    SQLite goes on writing to a deleted file while another process starts an empty one: two owners of one lane.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = self._identity()

    def check(self) -> None:
        """Raises LeaseStoreFailed when the file was deleted or replaced."""
        found = self._identity()
        if found != self._opened or found is None:
            what = "deleted" if found is None else "replaced by another file"
            raise LeaseStoreFailed(
                f"The lease file {self._path} was {what} while esm was using it, so its positions would be lost: "
                "put the file back, or restart esm to begin with what is there now."
            )

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LeaseStoreFailed(f"The lease file {self._path} cannot be looked at: {error.strerror}.") from error
        return (found.st_dev, found.st_ino)


class OwnerLocks:
    """One locked file per owner beside the lease file; the kernel drops the lock when the process ends, even by -9.

    So the leases of a killed worker are free at once, and those of a worker that merely hangs are not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, int] = {}
        self._dead: set[str] = set()

    def hold(self, owner: str) -> None:
        """Show that ``owner`` lives, until ``close``.  Raises OSError."""
        if owner in self._held:
            return
        handle = os.open(self._file(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        self._held[owner] = handle

    def dead(self, owner: str) -> bool:
        """Whether the process of ``owner`` has ended.  Owners' names are never used again."""
        if owner in self._held:
            return False
        if owner not in self._dead and self._lockable(owner):
            self._dead.add(owner)
        return owner in self._dead

    def _lockable(self, owner: str) -> bool:
        file = self._file(owner)
        try:
            handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # it went in peace, or the lease file was copied from elsewhere
            return True
        except OSError:  # not ours to look at: its leases run out by time
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(handle)

    def close(self) -> None:
        """Let all owners of this process go."""
        for owner, handle in self._held.items():
            with suppress(OSError):  # a file that stays is harmless: it can be locked
                self._file(owner).unlink(missing_ok=True)
            os.close(handle)
        self._held.clear()

    def _file(self, owner: str) -> Path:
        name = quote(owner, safe="")
        if len(name) > 150:
            name = name[:80] + hashlib.sha256(owner.encode()).hexdigest()
        return self._path.with_name(f"{self._path.name}.{name}.lock")
