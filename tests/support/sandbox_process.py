"""The sandbox as a process of its own, and clients of AWS for it."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

import pytest
from aiobotocore.session import AioSession

from esm.clients.aws import AwsClients, AwsSettings

REGION = "eu-west-1"
ROOT = Path(__file__).parents[2]
READY_SECONDS = 20
STOP_SECONDS = 20


class SandboxProcess:
    """``url`` is where it listens; ``process`` may be signalled."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url

    def rss(self) -> int:
        """Bytes of memory that it holds now (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def sandbox_process(*options: str, cwd: Path | None = None) -> Iterator[SandboxProcess]:
    """``python -m esm.sandbox OPTIONS``, ended by SIGTERM when the block ends; it must end with 0 then."""
    command = [sys.executable, "-m", "esm.sandbox", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                pytest.fail(f"{' '.join(command)} ended with {process.wait(READY_SECONDS)} before it was ready")
            yield SandboxProcess(process, url)
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0
        finally:
            process.kill()


@asynccontextmanager
async def aws_clients(url: str) -> AsyncIterator[AwsClients]:
    """Our clients, with credentials that are as good as any, for the sandbox at ``url``."""
    async with AwsClients(AwsSettings(endpoint_url=url), _session()) as clients:
        yield clients


@cache
def _session() -> AioSession:
    """One for all tests: it keeps the models of services, which take most of the time of a client's start."""
    session = AioSession()
    session.set_credentials("AKIDSANDBOX", "secret-of-the-sandbox")
    return session
