"""A server of a test run ends when it should, at the latest when the run does, in whatever way that ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.processes import NotStarted, Server, alive, free_ports

UP = "import pathlib, signal; print('up', flush=True); pathlib.Path('up').touch(); "
PATIENT = UP + "signal.pause()"
STUBBORN = UP.replace("print", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print") + "signal.pause()"
BROKEN = "import sys; print('no such table'); sys.exit(3)"
SILENT = (
    "import os, pathlib, signal; print('waiting', flush=True); "
    "pathlib.Path('pid').write_text(f'{os.getpid()}\\n'); signal.pause()"
)

RUN = """\
import os, signal, sys
from pathlib import Path
from tests.integration.guard import GUARD
from tests.integration.processes import Server

folder = Path(sys.argv[1])
GUARD.remove(folder)
server = Server("patient", [sys.executable, "-c", sys.argv[2]], folder, (folder / "up").exists)
server.start()
print(server.pid, flush=True)
signal.pause()
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s"
        time.sleep(0.01)


def python(script: str, folder: Path) -> Server:
    """A server that is ready once it has made the file ``up``, at each start anew."""

    def ready() -> bool:
        try:
            (folder / "up").unlink()  # in one step: a file that was made between a look and this would be lost
        except FileNotFoundError:
            return False
        return True

    return Server("test server", [sys.executable, "-c", script], folder, ready)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
def test_no_server_and_no_data_outlives_a_run_that_is_interrupted(end: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), PATIENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with run:
        assert run.stdout is not None
        server = int(run.stdout.readline())
        assert alive(server)
        run.send_signal(end)
    wait_until(lambda: not alive(server))
    wait_until(lambda: not folder.exists())


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    server = python(STUBBORN, tmp_path)
    server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    assert not alive(pid)
    assert not server.running


def test_a_frozen_server_heeds_sigterm(tmp_path: Path) -> None:
    server = python(PATIENT, tmp_path)
    server.start()
    process = server._process
    assert process is not None
    server.freeze()
    server.stop()
    assert process.returncode == -signal.SIGTERM


def test_a_server_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    server = python(BROKEN, tmp_path)
    with pytest.raises(NotStarted, match="test server ended with 3 instead of starting:\nno such table"):
        server.start()
    assert not server.running


def test_a_server_that_is_not_ready_in_time_shows_its_log_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "READY_SECONDS", 0.0)
    pid = tmp_path / "pid"

    def asked() -> bool:
        """Never ready; answers after the server has begun."""
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        return False

    server = Server("test server", [sys.executable, "-c", SILENT], tmp_path, asked)
    with pytest.raises(NotStarted, match="test server was not ready after 0 s:\nwaiting"):
        server.start()
    assert not alive(int(pid.read_text()))


def test_a_server_keeps_its_folder_over_a_restart_and_its_log_tells_the_second_start_apart(tmp_path: Path) -> None:
    server = python(PATIENT, tmp_path)
    server.start()
    first, position = server.pid, server.log_position()
    server.kill()
    server.start()
    assert server.pid != first
    server.stop()
    assert (server.log(), server.log(position)) == ("up\nup", "up")


def test_free_ports_are_different_and_not_those_that_connections_get() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(12_000 <= port < 32_000 for port in ports)
