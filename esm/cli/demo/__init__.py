"""``esm demo``: the real worker, through its real adapters, against a sandbox in this process."""

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from esm.cli.output import FAILED, WRONG_USE, Output, complain, say, say_json

if TYPE_CHECKING:
    from esm.cli.demo.show import Summary

RECORDS = 2_000
ALL = "sqs,kinesis,dynamodb,kafka"

RecordsOption = Annotated[int, typer.Option("--records", "-n", min=1, max=200_000, help="Records of each source.")]
SourcesOption = Annotated[str, typer.Option("--sources", "-s", help="Which sources, separated by commas.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="json prints nothing but the summary.")]
KeepOption = Annotated[
    bool, typer.Option("--keep-running", help="Leave sandbox and worker up afterwards, to send records of your own.")
]


def demo(
    records: RecordsOption = RECORDS,
    sources: SourcesOption = ALL,
    output: OutputOption = Output.TEXT,
    keep_running: KeepOption = False,
) -> None:
    """Watch records of four sources arrive, with poison among them and none lost.

    Nothing outside this machine is needed or touched.  Exit code 1 when a record was lost.
    """
    names = _names(sources)
    _forget_aws()
    import anyio

    from esm.cli.demo.show import Show

    began = time.monotonic()
    show = Show(names, records, output, keep_running)
    try:
        summary = anyio.run(show.run)
    except KeyboardInterrupt:
        complain("interrupted; nothing was left behind")
        raise typer.Exit(130) from None
    _end(summary, output, time.monotonic() - began, keep_running)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in ALL.split(",")]
    if unknown or not names:
        complain(f"--sources {text!r}: {unknown[0] if unknown else 'nothing'}, expected some of {ALL}")
        raise typer.Exit(WRONG_USE)
    return names


def _forget_aws() -> None:
    """What the person at this terminal has set up for AWS stays out of it: the sandbox takes any credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def _end(summary: "Summary", output: Output, seconds: float, kept_running: bool) -> None:
    if output is Output.JSON:
        say_json({"seconds": round(seconds, 1), "sources": summary.sources})
    else:
        say(summary.text)
        say("")
        if not kept_running:
            say("next: make demo ARGS=--keep-running, then send a record of your own")
        lead = "next: " if kept_running else "      "
        say(f"{lead}config/ has an example for each source: esm validate --config FILE,")
        say("      then esm run --config FILE")
    sys.stdout.flush()
    if any(source["lost"] for source in summary.sources.values()) or summary.missing:
        raise typer.Exit(FAILED)
