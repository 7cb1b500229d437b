"""How commands speak: text for people, JSON for programs, and the exit codes of both."""

import json
import sys
from enum import StrEnum
from typing import Any

FAILED = 1
WRONG_USE = 2
"""Wrong options or a wrong configuration."""


class Output(StrEnum):
    """The forms of ``--output``."""

    TEXT = "text"
    JSON = "json"


def say(text: str) -> None:
    """A line for whoever asked, on stdout."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """A line about what is wrong, on stderr."""
    sys.stderr.write(f"{text}\n")


def say_json(value: Any) -> None:  # whatever json takes
    """``value`` as one indented JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
