"""Programs of the machine that integration tests call: absent, they skip a test; in CI they fail it."""

import os
import re
import shutil
import subprocess
from functools import cache
from typing import NoReturn

import pytest

from scripts.bootstrap import TOOLS

OLDEST_JAVA = 17


def require(*tools: str) -> None:
    """Leave the test unless all ``tools`` are there: a skip that names the Debian package, in CI a failure."""
    if sentence := lack(*tools):
        leave(sentence)


def lack(*tools: str) -> str:
    """What is wrong with the first of ``tools`` that is not as it should be, and what to do; else nothing."""
    found = ((_lack(tool), tool) for tool in tools)
    return next((f"{wrong}. On Debian and Ubuntu: apt install {TOOLS[tool]}" for wrong, tool in found if wrong), "")


def leave(sentence: str) -> NoReturn:
    """Skip the test because of what this machine lacks, ``sentence``; in CI it has failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def _lack(tool: str) -> str:
    """What is wrong with ``tool``, or nothing."""
    if shutil.which(tool) is None:
        return f"needs {tool}, which is not on the PATH"
    if tool == "java" and _java_version() < OLDEST_JAVA:
        return f"needs Java {OLDEST_JAVA} or newer; found {_java_version()}"
    return ""


@cache
def _java_version() -> int:
    """17 for "17.0.15", 8 for "1.8.0"; 0 where `java -version` does not say."""
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(version[1]) if version else 0
