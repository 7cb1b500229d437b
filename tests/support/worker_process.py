"""``esm run`` as a user starts it: a process with a YAML file of its own, watched through its logs and admin server."""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import aiohttp
import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 40.0
"""How long anything may take before a test gives up on it."""
STOP_SECONDS = 40.0
LONG_POLL_SECONDS = 25.0
_LINE_BYTES = 1_000_000
_LOOK_AGAIN_SECONDS = 0.02

Log = dict[str, Any]


async def until(
    condition: Callable[[], object], what: str, who: object = "", *, within: float = PATIENCE_SECONDS
) -> None:
    """Return once ``condition`` holds; else fails after a while, naming ``what`` and showing ``who`` as it is then."""
    with anyio.move_on_after(within) as scope:
        while not condition():  # noqa: ASYNC110 - any condition, in this process or another
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
    assert not scope.cancelled_caught, f"waited {within:g} s in vain until {what}: {who}"


def clean_environment(**more: str) -> dict[str, str]:
    """What a person without any set-up for AWS or esm has, but for credentials that are as good as any."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
        **more,
    }


class WorkerProcess:
    """One ``esm run``.  ``logs`` holds its JSON lines so far, ``lines`` whatever else it said."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.logs: list[Log] = []
        self.lines: list[str] = []
        self.silent = False
        """Whether its standard error is closed."""

    # -- what it says

    async def read(self) -> None:
        """Take in its standard error, line by line, to its end."""
        if self._process.stderr is None:  # it has a terminal
            self.silent = True
            return
        stream = BufferedByteReceiveStream(self._process.stderr)
        try:
            while True:
                line = (await stream.receive_until(b"\n", _LINE_BYTES)).decode()
                if line.startswith("{"):
                    self.logs.append(json.loads(line))
                else:
                    self.lines.append(line)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.silent = True

    async def stop_listening(self) -> None:
        """Close the reading end of its standard error."""
        assert self._process.stderr is not None
        await self._process.stderr.aclose()

    def said(self, event: str, **fields: object) -> list[Log]:
        """Its log lines of ``event`` whose ``fields`` are these."""
        return [log for log in self.logs if log["event"] == event and fields.items() <= log.items()]

    async def log(self, event: str, **fields: object) -> Log:
        """The first such log line, as soon as there is one; fails where the process ends without it."""
        await until(lambda: self.silent or self.said(event, **fields), f"the log says {event} {fields}", self)
        found = self.said(event, **fields)
        assert found, f"it ended without saying {event} {fields}: {self}"
        return found[0]

    def __str__(self) -> str:
        return "\n".join([f"esm run, pid {self.pid}:", *self.lines[-10:], *map(str, self.logs[-30:])])

    # -- what it is

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> Sequence[int]:
        """Process ids of its children."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    # -- its admin server

    async def admin(self, path: str) -> tuple[int, str]:
        """Status and text of a page of its admin server."""
        address = (await self.log("worker_started"))["admin"]
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with aiohttp.request("GET", f"http://{address}{path}", timeout=timeout) as response:
            return response.status, await response.text()

    async def readyz(self) -> tuple[int, dict[str, str | None]]:
        """Status of `/readyz`, and per mapping why it is not ready (None: it is)."""
        status, text = await self.admin("/readyz")
        return status, {each["name"]: each["why"] for each in json.loads(text)["mappings"]}

    async def why(self, mapping: str, has: str, within: float = PATIENCE_SECONDS) -> str:
        """Why ``mapping`` is not ready, as soon as that sentence holds ``has``."""
        told: str | None = None
        with anyio.move_on_after(within):
            while has not in (told or ""):
                await anyio.sleep(_LOOK_AGAIN_SECONDS)
                told = (await self.readyz())[1][mapping]
        assert has in (told or ""), f"{mapping}: {told!r} tells nothing of {has!r}: {self}"
        return told or ""

    async def ready(self, *mappings: str, within: float = PATIENCE_SECONDS) -> None:
        """Return once ``mappings`` (none named: all) are ready."""
        told: dict[str, str | None] = {}
        with anyio.move_on_after(within):
            while not told or any(told[name] for name in mappings or told):
                await anyio.sleep(_LOOK_AGAIN_SECONDS)
                told = (await self.readyz())[1]
        assert told, str(self)
        assert not any(told[name] for name in mappings or told), f"{told}: {self}"

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all children that bear ``labels``."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = (await self.admin("/metrics"))[1].splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in found if all(each in line for each in wanted))

    # -- its end

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where it has ended."""
        if self.running:
            os.kill(self.pid, number)

    async def ended(self, within: float = STOP_SECONDS) -> int:
        """Its exit code, as soon as it has ended; a negative one is the signal that ended it."""
        with anyio.move_on_after(within):
            return await self._process.wait()
        raise AssertionError(f"it still runs after {within:g} s: {self}")

    async def kill(self) -> None:
        """SIGKILL, and gone."""
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def esm_run(
    folder: Path, config: Mapping[str, object], *, program: Sequence[str] = ("-m", "esm"), **environ: str
) -> AsyncGenerator[WorkerProcess, None]:
    """``esm run`` with ``config`` as its file in ``folder``, where it works; killed at the end unless it has ended."""
    file = folder / "esm.yaml"
    file.write_text(json.dumps({"admin": {"port": 0}, **config}, indent=1))  # JSON is YAML
    async with command(folder, [*program, "run", "--config", str(file)], **environ) as worker:
        yield worker


@asynccontextmanager
async def command(
    folder: Path, arguments: Sequence[str], *, output: int | None = None, errors: int = PIPE, **environ: str
) -> AsyncGenerator[WorkerProcess, None]:
    """``python ARGUMENTS`` in ``folder``; killed at the end unless it has ended.

    ``output`` and ``errors`` are where its two streams go to, if not to this process's and to ``WorkerProcess``.
    """
    process = await anyio.open_process(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environment(**environ),
        stdin=DEVNULL,
        stdout=output,
        stderr=errors,
    )
    worker = WorkerProcess(process)
    raised: BaseException | None = None
    async with process, anyio.create_task_group() as tasks:
        tasks.start_soon(worker.read)
        try:
            yield worker
        except Exception as error:  # noqa: BLE001 - raised again below: a task group would wrap it
            raised = error
        finally:
            with anyio.CancelScope(shield=True):
                await worker.kill()
                await until(lambda: worker.silent, "its standard error is closed")
    if raised is not None:
        raise raised
