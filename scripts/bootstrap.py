"""Make ``.venv`` ready: ``bootstrap.py PROFILE WORD``, called by each word of the Makefile.

PROFILE is ``demo`` (what ``esm demo`` needs) or ``dev`` (everything); WORD is the word that was typed, for messages.
Once the environment is ready the next call returns at once and needs no network.  A change of the dependencies in
``pyproject.toml`` or of ``constraints.txt`` installs again; an environment that was left half made is made anew.

Standard library only, and parsed by Pythons as old as 3.7: those get a sentence instead of a traceback.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

OLDEST = (3, 11)
EXTRAS = {"demo": "demo", "dev": "demo,dev,kafka-registry,otel"}
TOOLS = {
    "promtool": "prometheus",
    "java": "default-jre-headless",
    "mvn": "maven",
    "node": "nodejs",
    "npm": "npm",
}
"""What integration tests call, and the Debian package that has it."""

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ready.json"  # written last: without it nothing counts as ready
INSTALLING = VENV / "installing"  # stays behind only if pip was killed at work: the environment may hold half a package


class Trouble(Exception):
    """Why the environment cannot be made: a sentence that says what to do."""


def main(profile: str, word: str) -> int:
    try:
        check_python(word)
        with one_at_a_time():
            if not ready(profile):
                make(profile)
            if profile == "dev" and os.environ.get("CI") == "true" and hasattr(os, "geteuid") and os.geteuid() == 0:
                install_tools()
    except Trouble as trouble:
        say(str(trouble))
        return 2
    except KeyboardInterrupt:
        say(f"interrupted; make {word} starts again where it has to")
        return 130
    return 0


def say(sentence: str) -> None:
    """On stderr: the standard output of ``make demo`` belongs to the demo."""
    print(sentence, file=sys.stderr, flush=True)


def check_python(word: str) -> None:
    found, needed = "{}.{}".format(*sys.version_info[:2]), "{}.{}".format(*OLDEST)
    if sys.version_info < OLDEST:
        raise Trouble(f"needs Python {needed} or newer; found {found}. Try: make {word} PYTHON={newer_python()}")
    try:
        import ensurepip  # noqa: F401 - asked for here because Debian ships Python without it
        import venv  # noqa: F401 - as above
    except ImportError:
        raise Trouble(
            f"needs the modules venv and ensurepip, which Python {found} at {sys.executable} lacks. "
            f"On Debian and Ubuntu: apt install python{found}-venv, then make {word} again"
        ) from None


def newer_python() -> str:
    """A Python on the PATH that is new enough and runs, else the one to install."""
    for name in ("python3.13", "python3.12", "python3.11"):
        if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return name
    return "python3.12"


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two makes at once wait for each other; the lock is on a file that is there anyway."""
    import fcntl  # absent on Windows, where the version check still has to answer

    with (ROOT / "pyproject.toml").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ready(profile: str) -> bool:
    state = stamped()
    return state.get("fingerprint") == fingerprint() and state.get("profile") in (profile, "dev")


def stamped() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def fingerprint() -> str:
    """Changes with whatever the environment was made from: dependencies, pins, Python, and where the project lies."""
    import tomllib  # new in 3.11, and the version has been checked by now

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    made_from = [
        project["build-system"],
        project["project"],
        (ROOT / "constraints.txt").read_text(encoding="utf-8"),
        list(sys.version_info[:3]),
        str(VENV),
    ]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def make(profile: str) -> None:
    if stamped().get("profile") == "dev":
        profile = "dev"  # an environment for everything stays one
    STAMP.unlink(missing_ok=True)
    if not usable():
        say(f"making {VENV.name} with Python {sys.version.split()[0]}")
        run([base_python(), "-m", "venv", "--clear", str(VENV)], "could not make the environment")
    say(f"installing esm[{EXTRAS[profile]}] into {VENV.name}: a minute or two the first time, from the package index")
    INSTALLING.touch()
    pip_install(["hatchling"])
    pip_install(["--no-build-isolation", "--editable", f".[{EXTRAS[profile]}]"])
    INSTALLING.unlink()
    STAMP.write_text(json.dumps({"profile": profile, "fingerprint": fingerprint()}) + "\n", encoding="utf-8")
    say(f"{VENV.name} is ready")


def usable() -> bool:
    """An environment of this Python at this place, with a working pip and no installation cut short."""
    if INSTALLING.exists() or not (VENV / "bin" / "python").exists():
        return False
    asks = "import pip, sys; print(list(sys.version_info[:3]), sys.prefix)"
    answer = subprocess.run([str(VENV / "bin" / "python"), "-c", asks], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == f"{list(sys.version_info[:3])} {VENV}"


def base_python() -> str:
    """The Python outside of any environment: the one running may be the one about to be cleared."""
    return str(getattr(sys, "_base_executable", sys.executable))


def pip_install(arguments: list[str]) -> None:
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    before = installed()
    try:
        run([*pip, "--constraint", "constraints.txt", *arguments], f"pip could not install {arguments[-1]}")
    except Trouble:
        if installed() == before:  # nothing was touched (no network, say): what is there can be built upon
            INSTALLING.unlink()
        raise


def installed() -> list[str]:
    return sorted(str(path) for path in VENV.glob("lib/python*/site-packages/*"))


def run(command: list[str], failed: str) -> None:
    code = subprocess.call(command, cwd=ROOT, stdout=sys.stderr, stdin=subprocess.DEVNULL)
    if code < 0:
        raise KeyboardInterrupt  # killed from outside
    if code > 0:
        raise Trouble(f"{failed}; the lines above say why")


def install_tools() -> None:
    """On a CI machine that is ours to change: the Debian packages that integration tests need and it lacks."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if not missing or not shutil.which("apt-get"):
        return
    say(f"installing {', '.join(missing)} by apt-get, because CI=true")
    # In "single user mode" (runlevel 1) a package starts no service: the tool is wanted, not a daemon on an open port.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        code = subprocess.call(
            ["apt-get", "-qq", *command], env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL
        )
        if code:
            raise Trouble(f"apt-get {command[0]} ended with {code}; the lines above say why")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
