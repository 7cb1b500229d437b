"""Write every version that ``.venv`` holds to ``constraints.txt``, but the project's own and pip's."""

import sys
from importlib.metadata import distributions
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "constraints.txt"
NOT_PINNED = {"esm", "pip", "setuptools"}
HEAD = """\
# The versions that are tested together: every package of every extra, and what builds the project.
# After a change of the dependencies: make pins (see CONTRIBUTING.md).
"""


def main() -> int:
    versions = {item.metadata["Name"]: item.version for item in distributions()}
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower) if name not in NOT_PINNED]
    PINS.write_text(HEAD + "".join(lines), encoding="utf-8")
    print(f"{PINS.name}: {len(lines)} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
