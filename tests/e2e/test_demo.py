"""``esm demo`` as a person or a program runs it."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec._core
import pytest
from msgspec import Struct

from tests.support.side_by_side import side_by_side
from tests.support.worker_process import ROOT, clean_environment

pytestmark = pytest.mark.anyio

RECORDS = 300
COUNT = ("--records", str(RECORDS))
ALL = ("sqs", "kinesis", "dynamodb", "kafka")
POISON = {"sqs": 2, "kinesis": 1, "dynamodb": 1, "kafka": 1}
COLUMNS = 80
DEMO_SECONDS = 55


class Shown(Struct, frozen=True):
    """What a demo said, and how it ended."""

    code: int
    output: str
    errors: str


def piped(*arguments: str, **environ: str) -> Shown:
    """A demo whose streams are no terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "esm", "demo", *arguments],
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
    return Shown(done.returncode, done.stdout, done.stderr)


def on_a_terminal(*arguments: str) -> Shown:
    """A demo on a terminal of COLUMNS columns."""
    leader, follower = pty.openpty()
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-m", "esm", "demo", *arguments],
        env=clean_environment(COLUMNS=str(COLUMNS), LINES="40", TERM="xterm-256color"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        try:
            while chunk := os.read(leader, 65_536):
                shown += chunk
        except OSError:  # how Linux says that nobody has the terminal any more
            pass
        code = process.wait(timeout=DEMO_SECONDS)
    os.close(leader)
    return Shown(code, shown.decode(), "")


def broken_kafka(folder: Path) -> str:
    """A folder for Python's path where confluent_kafka is a wheel whose librdkafka has none of the symbols."""
    package, libraries = folder / "confluent_kafka", folder / "confluent_kafka.libs"
    package.mkdir(parents=True)
    libraries.mkdir()
    (package / "__init__.py").touch()
    assert msgspec._core.__file__ is not None
    (libraries / "librdkafka-1.so").symlink_to(msgspec._core.__file__)  # it loads, but is another library
    return str(folder)


def counted(shown: Shown, *sources: str) -> dict[str, Any]:
    """The JSON of a demo, which must be all that it printed; its counts must be these of RECORDS records."""
    told: dict[str, Any] = json.loads(shown.output)
    assert list(told) == ["seconds", "sources"]
    assert list(told["sources"]) == list(sources)
    for name, numbers in told["sources"].items():
        assert list(numbers) == ["sent", "delivered", "filtered", "discarded", "duplicates", "lost"]
        duplicates = numbers.pop("duplicates")
        assert 0 <= duplicates < RECORDS
        poison = POISON[name]
        assert numbers == {
            "sent": RECORDS,
            "delivered": RECORDS - poison,
            "filtered": 0,
            "discarded": poison,
            "lost": 0,
        }, name
    return told


@side_by_side
async def test_the_json_of_the_demo_counts_four_sources_loses_nothing_and_discards_the_poison(folder: Path) -> None:
    shown = await anyio.to_thread.run_sync(lambda: piped(*COUNT, "--output", "json"))
    assert (shown.code, shown.errors) == (0, "")
    assert 0 < counted(shown, *ALL)["seconds"] < 60


@side_by_side
async def test_the_demo_shows_the_sources_that_are_asked_for(folder: Path) -> None:
    shown = await anyio.to_thread.run_sync(lambda: piped(*COUNT, "--output", "json", "--sources", "sqs,kinesis"))
    assert (shown.code, shown.errors) == (0, "")
    counted(shown, "sqs", "kinesis")


@side_by_side
async def test_on_a_terminal_of_80_columns_the_demo_ends_with_the_sum_and_no_line_is_wider(folder: Path) -> None:
    shown = await anyio.to_thread.run_sync(lambda: on_a_terminal(*COUNT))
    assert shown.code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.output).replace("\r\n", "\n")
    sent, poison = RECORDS * len(ALL), sum(POISON.values())
    total = (
        f"{sent:,} sent = {sent - poison:,} delivered + 0 filtered + {poison} discarded, 0 lost, "
        "counted by the functions themselves"
    )
    lines = [line for piece in text.split("\n") for line in piece.split("\r")]
    assert total in lines
    assert all(len(line) <= COLUMNS for line in lines if line != total), max(lines, key=len)
    assert any(
        re.match(r"kinesis shard \d: batch of \d+ failed \(ValueError: poison\), halved", each) for each in lines
    )
    assert any(re.match(r"kafka +300 +299 +1 ", line) for line in lines), "one line a source"
    assert any(line.startswith("next: ") for line in lines)
    assert "Traceback" not in text


@side_by_side
async def test_without_librdkafkas_symbols_the_demo_says_so_and_goes_on_with_three_sources(folder: Path) -> None:
    shown = await anyio.to_thread.run_sync(
        lambda: piped(*COUNT, PYTHONPATH=f"{broken_kafka(folder)}{os.pathsep}{ROOT}")
    )
    assert shown.code == 1, "what was asked for could not be shown"
    assert "WITHOUT KAFKA" in shown.errors
    assert "librdkafka" in shown.errors
    assert "constraints.txt" in shown.errors, "what to do about it"
    assert "Traceback" not in shown.errors
    assert "900 sent = 896 delivered + 0 filtered + 4 discarded, 0 lost" in shown.output


@pytest.mark.parametrize("sources", ["sqs,kinesys", ""])
def test_a_source_that_is_unknown_is_wrong_use(sources: str) -> None:
    shown = piped("--sources", sources)
    assert shown.code == 2
    assert shown.output == ""
    assert f"--sources '{sources}'" in shown.errors
    assert "expected some of sqs,kinesis,dynamodb,kafka" in shown.errors
