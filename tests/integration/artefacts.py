"""The programs of the real services: fetched once, into a folder of the user.

``$XDG_CACHE_HOME/esm-tests`` (``~/.cache/esm-tests``) holds a folder for each service and each content of the file that
names its versions (``pom.xml``, ``package.json``).  A folder has its final name only when it is complete.  It is filled
under a lock, so that two runs at once fetch it once, and from the caches of Maven and npm before the network is asked.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
PACKAGE = HERE / "package.json"

OFFLINE_SECONDS = 60
ONLINE_SECONDS = 600


class Unavailable(Exception):
    """A service cannot be had: neither the local caches nor the network has all of it."""


def cache() -> Path:
    """The folder of this user for what tests fetch; made if absent."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "esm-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock on the file ``path``, which a process loses when it ends, however it ends.

    ``on_wait`` is called once if another process holds it; then this waits for as long as that takes.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def java(service: str) -> Path:
    """The folder with the jars of ``service``, a profile of ``pom.xml``.  Raises Unavailable."""

    def calls(folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        goal = [f"-P{service}", "dependency:copy-dependencies", f"-Djars={folder}"]
        online = ["mvn", "--batch-mode", "--quiet", "-Dstyle.color=never", "--file", str(POM), *goal]
        return [*online, "--offline"], online

    return _fetched(service, POM, calls)


def node(service: str) -> Path:
    """The folder in which ``node_modules`` holds ``service``, named in ``package.json``.  Raises Unavailable."""

    def calls(folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        shutil.copy(PACKAGE, folder)
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        install = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--omit=optional", *quiet]
        return [*install, "--offline"], [*install, "--prefer-offline"]

    return _fetched(service, PACKAGE, calls)


def _fetched(service: str, versions: Path, calls: Callable[[Path], tuple[Sequence[str], Sequence[str]]]) -> Path:
    """The folder of ``service``, made by the first of ``calls`` (offline, online) that ends well."""
    final = cache() / f"{service}-{hashlib.sha256(versions.read_bytes()).hexdigest()[:12]}"
    with locked(cache() / f"{service}.lock"):
        if final.is_dir():
            return final
        partial = final.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        offline, online = calls(partial)
        if _failed(offline, partial, OFFLINE_SECONDS) and (trouble := _failed(online, partial, ONLINE_SECONDS)):
            shutil.rmtree(partial)
            raise Unavailable(
                f"{service} is neither in a local cache nor could it be fetched; {online[0]} said: {trouble}"
            )
        partial.rename(final)
    return final


def _failed(command: Sequence[str], folder: Path, seconds: float) -> str:
    """What ``command`` complained about; empty if it ended well."""
    try:
        ran = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"nothing for {seconds} s"
    return "" if ran.returncode == 0 else (ran.stdout + ran.stderr).strip()[-600:] or f"exit code {ran.returncode}"
