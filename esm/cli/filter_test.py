"""``esm filter-test``: which records a mapping's filters would let through, without a mapping, a source or a target."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from esm.cli.output import WRONG_USE, complain, say
from esm.domain.filtering import DATA_RULES, MOST_PATTERNS, Filters
from esm.domain.patterns import BadPattern


class Kind(StrEnum):
    """The kinds of sources."""

    SQS = "sqs"
    KINESIS = "kinesis"
    DYNAMODB = "dynamodb"
    KAFKA = "kafka"


class Form(StrEnum):
    """The forms of ``--output``."""

    TABLE = "table"
    JSON = "json"


SourceOption = Annotated[Kind, typer.Option("--source", "-s", help="The kind of source the records come from.")]
PatternOption = Annotated[
    list[str],
    typer.Option("--pattern", "-p", help="A pattern, or @FILE that holds one; repeat it for more: one must fit."),
]
RecordsOption = Annotated[
    str, typer.Option("--records", "-r", help="A file with one record of an event a line, as JSON; - reads stdin.")
]
FormOption = Annotated[Form, typer.Option("--output", "-o", help="A table for people, json lines for programs.")]


class _WrongUse(Exception):
    pass


def filter_test(
    source: SourceOption, pattern: PatternOption, records: RecordsOption, output: FormOption = Form.TABLE
) -> None:
    """Say for each record whether one of the patterns fits: exit code 2 for a bad pattern or record."""
    try:
        filters = _filters(source, pattern)
        if output is Form.TABLE:
            say("line  matched")
        for number, line in _lines(records):
            matched = _matched(filters, source, records, number, line)
            say(_row(output, number, matched))
    except _WrongUse as error:
        complain(str(error))
        raise typer.Exit(WRONG_USE) from None


def _filters(source: Kind, patterns: list[str]) -> Filters:
    if len(patterns) > MOST_PATTERNS:
        raise _WrongUse(f"Found {len(patterns)} patterns, expected at most {MOST_PATTERNS}.")
    for number, text in enumerate(patterns, start=1):
        try:
            Filters(source.value, [_pattern(text)])
        except BadPattern as error:
            named = text[1:] if text.startswith("@") else f"Pattern {number}"
            raise _WrongUse(f"{named}: {error}") from None
    return Filters(source.value, [_pattern(text) for text in patterns])


def _pattern(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise _WrongUse(f"{text[1:]}: cannot be read as a pattern: {error}") from None


def _lines(records: str) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    with ExitStack() as stack:
        try:
            file = sys.stdin.buffer if records == "-" else stack.enter_context(Path(records).open("rb"))
        except OSError as error:
            raise _WrongUse(f"{records}: cannot be read: {error.strerror}.") from None
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _matched(filters: Filters, source: Kind, records: str, number: int, line: bytes) -> bool:
    try:
        view = DATA_RULES[source.value].view(line)
    except ValueError:
        name = "stdin" if records == "-" else records
        raise _WrongUse(f"{name}:{number}: Expected one record of an event as a JSON object.") from None
    return filters.passes(view)


def _row(output: Form, number: int, matched: bool) -> str:
    if output is Form.JSON:
        return f'{{"line": {number}, "matched": {"true" if matched else "false"}}}'
    return f"{number:>4}  {'yes' if matched else 'no'}"
