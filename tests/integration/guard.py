"""Nothing is left behind: a small process of its own that outlives the test run by a moment.

It learns by a pipe which process groups run and which folders are temporary.  When the pipe closes, because the test
run ended in whatever way (also by SIGKILL), it kills the groups that are left, then removes the folders.  Run as
``python guard.py``; standard library only.
"""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def kill_group(leader: int) -> None:
    """End a process group at once; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def watch(lines: Iterable[str]) -> None:
    """Note groups (``+PID``), forget them (``-PID``), note folders (``/PATH``); when ``lines`` ends, clear up."""
    groups: set[int] = set()
    folders: list[str] = []
    for line in lines:
        if line.startswith("/"):
            folders.append(line.removesuffix("\n"))
        elif line.startswith("+"):
            groups.add(int(line))
        else:
            groups.discard(-int(line))
    for leader in groups:
        kill_group(leader)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Guard:
    """The guard of this test run; started with the first process that is noted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def note(self, leader: int) -> None:
        """Kill the group of ``leader`` when this run ends before ``forget`` is called."""
        self._tell(f"+{leader}")

    def forget(self, leader: int) -> None:
        """The group of ``leader`` has ended; its number may belong to someone else from now on."""
        self._tell(f"-{leader}")

    def remove(self, folder: Path) -> None:
        """Remove ``folder`` when this run ends."""
        self._tell(str(folder.absolute()))

    def close(self) -> None:
        """Have whatever is left killed and removed, and wait for that."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate(timeout=10)

    def _tell(self, change: str) -> None:
        if self._process is None:
            command = [sys.executable, "-S", __file__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
            atexit.register(self.close)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{change}\n")
        self._process.stdin.flush()


GUARD = Guard()

if __name__ == "__main__":
    watch(sys.stdin)
