"""Do the pins install from wheels alone on the Pythons that the tests do not run on?  A dry run of pip for each.

Exit code 0: they do, or (outside of CI) there is no package index to ask.  The answer depends on the pins alone, so it
is kept beside them in ``.venv`` until they change.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHONS = ("3.12", "3.13")
ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "constraints.txt"
KNOWN = ROOT / ".venv" / "wheels-resolve"


def main() -> int:
    pins = [line for line in PINS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    asked = hashlib.sha256(repr((PYTHONS, pins)).encode()).hexdigest()
    if KNOWN.exists() and KNOWN.read_text(encoding="utf-8") == asked:
        print(f"wheels: the pins resolve for Python {', '.join(PYTHONS)} (asked before)")
        return 0
    if not index_answers(pins):
        print("wheels: skipped, no package index answers", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    for python in PYTHONS:
        answer = dry_run(pins, "--python-version", python)
        if answer.returncode:
            print(answer.stderr, file=sys.stderr)
            print(
                f"wheels: constraints.txt does not install from wheels on Python {python}; see above", file=sys.stderr
            )
            return 1
    KNOWN.write_text(asked, encoding="utf-8")
    print(f"wheels: the pins resolve for Python {', '.join(PYTHONS)}")
    return 0


def index_answers(pins: list[str]) -> bool:
    """Whether one pin can be looked up for the Python that runs, where it is known to exist."""
    return dry_run(pins[:1], "--no-deps", "--retries", "0").returncode == 0


def dry_run(pins: list[str], *options: str) -> "subprocess.CompletedProcess[str]":
    """Resolve ``pins``, which name every package there is, as wheels; installs nothing."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-input", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as target:
        elsewhere = ["--only-binary=:all:", "--target", target, "--constraint", str(PINS)]
        return subprocess.run([*pip, *elsewhere, *options, *pins], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
