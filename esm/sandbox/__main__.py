"""The sandbox as a process of its own: ``python -m esm.sandbox``.

    python -m esm.sandbox --queue orders --stream clicks:2 --table carts --function tally=module:handler \\
        --generate kinesis:clicks:20000 --fault 'sqs:DeleteMessageBatch=fail_entries@every:10'

prints its endpoint as one line once it listens (``http://127.0.0.1:40123``: the ``endpoint_url`` of every AWS client),
and ends with 0 on SIGTERM or SIGINT; 1: the port is taken, 2: the options make no sense.  Everything is in memory.
Region is eu-west-1, account 123456789012; any credentials will do.  ARNs are known beforehand:
``arn:aws:sqs:eu-west-1:123456789012:orders``, ``arn:aws:kinesis:eu-west-1:123456789012:stream/clicks``,
``arn:aws:dynamodb:eu-west-1:123456789012:table/carts/stream/2026-01-01T00:00:00.000``,
``arn:aws:lambda:eu-west-1:123456789012:function:tally``.

What is generated (``--generate``) is made when it is read and forgotten afterwards, up to the number that is given:
the memory of the sandbox stays the same whatever that is.
"""

import argparse
import asyncio
import inspect
import signal
import sys
from collections.abc import Sequence

from esm.sandbox import preset
from esm.sandbox.server import Sandbox
from esm.sandbox.wire import AwsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox until a signal ends it; answers the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except OSError as error:
        sys.stderr.write(f"The sandbox cannot listen on {options.host}:{options.port}: {error.strerror}\n")
        return 1
    except (ValueError, AwsError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


async def _run(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Sandbox.open(options.port, options.host, access_keys=options.access_key) as sandbox:
        await _prepare(sandbox, options)
        sys.stdout.write(f"{sandbox.url}\n")
        sys.stdout.flush()
        await stopped.wait()


async def _prepare(sandbox: Sandbox, options: argparse.Namespace) -> None:
    for text in options.queue:
        preset.add_queue(sandbox, text)
    for text in options.stream:
        preset.add_stream(sandbox, text)
    for text in options.table:
        preset.add_table(sandbox, text)
    for text in options.function:
        preset.add_function(sandbox, text, options.function_timeout)
    for text in options.generate:
        preset.generate(sandbox, text)
    for text in options.script:
        answer = preset.named(text)(sandbox)
        if inspect.isawaitable(answer):
            await answer
    for text in options.fault:
        preset.add_fault(sandbox, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m esm.sandbox",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0, the default, is a free port")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1")
    parser.add_argument(
        "--function-timeout", type=float, default=3, metavar="SECONDS", help="of every --function; default 3"
    )
    several = {
        "--queue": ("NAME[,ATTRIBUTE=VALUE…][,dead_letters=QUEUE][,max_receives=N]", preset.add_queue),
        "--stream": ("NAME[:SHARDS]", preset.add_stream),
        "--table": ("NAME[:SHARDS]", preset.add_table),
        "--function": ("NAME=MODULE:FUNCTION|KIND", preset.add_function),
        "--generate": ("SERVICE:NAME:COUNT[:BYTES][@RATE]", preset.generate),
        "--fault": ("OPERATION=EFFECT[@CALLS]", preset.add_fault),
    }
    for option, (metavar, what) in several.items():
        text = (inspect.getdoc(what) or "").replace("``", "").replace("%", "%%")
        parser.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    parser.add_argument(
        "--script",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="called with the Sandbox before it says that it is ready: any fault, any resource; may be async",
    )
    parser.add_argument(
        "--access-key", action="append", default=[], metavar="ID", help="let in no other access key ids than these"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
