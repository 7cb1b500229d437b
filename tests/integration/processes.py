"""A server that a test run starts: a child process with a log, a deadline to be ready, and an end that is certain."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.integration.guard import GUARD, kill_group

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
"""How long SIGTERM may take."""
KILL_SECONDS = 10.0
"""How long SIGKILL may take: the kernel has its own pace where a disk is busy."""
LOG_LINES = 100

_LOOK_AGAIN_SECONDS = 0.02


class NotStarted(Exception):
    """A server ended, or said nothing, before it was ready; its log follows."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses, below those the system gives to connections: free for a restart too.

    Raises RuntimeError if there are none.
    """
    found: list[int] = []
    for _ in range(1000):
        if len(found) == count:
            return found
        port = 12_000 + secrets.randbelow(20_000)
        if port not in found and _free(port):
            found.append(port)
    raise RuntimeError(f"found no {count} free ports between 12000 and 32000 on 127.0.0.1")


def _free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether someone listens at ``port`` of 127.0.0.1."""
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """One server, which may be stopped, killed and started again on the same ports and data.

    ``command`` runs in ``folder``, where ``server.log`` takes what it prints.  ``ready`` is asked until it says yes.
    All methods wait: from a coroutine that must go on meanwhile call them by ``anyio.to_thread.run_sync``.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, ready: Callable[[], bool]) -> None:
        self.name = name
        self.folder = folder
        self._command = command
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Start and wait until ready; does nothing if it runs.  Raises NotStarted with the log."""
        if self.running:
            return
        self._gone()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        GUARD.note(self._process.pid)
        try:
            self._until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not heeded within STOP_SECONDS.  Does nothing if it does not run."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # a frozen one would never see it
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._gone()

    def kill(self) -> None:
        """SIGKILL to the process and its children.  Does nothing if it does not run."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait(KILL_SECONDS)
        self._gone()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers, until ``thaw``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop if it runs, and start.  Raises NotStarted with the log."""
        self.stop()
        self.start()

    def log_position(self) -> int:
        """How much the log holds by now, for ``log``."""
        return self._log_file.stat().st_size if self._log_file.exists() else 0

    def log(self, since: int = 0) -> str:
        """The last lines of what the server printed after the position ``since``."""
        if not self._log_file.exists():
            return ""
        lines = self._log_file.read_bytes()[since:].decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        since, deadline = self.log_position(), time.monotonic() + READY_SECONDS
        while not self._ready():
            if process.poll() is not None:
                raise NotStarted(f"{self.name} ended with {process.returncode} instead of starting:\n{self.log(since)}")
            if time.monotonic() > deadline:
                raise NotStarted(f"{self.name} was not ready after {READY_SECONDS:.0f} s:\n{self.log(since)}")
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _gone(self) -> None:
        if self._process is not None:
            self._process.poll()
            GUARD.forget(self._process.pid)
            self._process = None


def alive(pid: int) -> bool:
    """Whether a process with this id runs (one that waits to be reaped does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
