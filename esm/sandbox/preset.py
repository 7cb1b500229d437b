"""What a sandbox of its own process holds from the start, as text says it: queues, streams, tables, functions, faults.

Every function here raises ValueError (AwsError where AWS itself would refuse) with a sentence for text that makes no
sense.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable

from esm.sandbox import faults
from esm.sandbox.functions import WORDS, add_kind
from esm.sandbox.lambda_ import Function
from esm.sandbox.queues import FifoQueue, Queue
from esm.sandbox.server import Sandbox
from esm.sandbox.supply import Supply

STREAM_LABEL = "2026-01-01T00:00:00.000"
"""Of every stream of a table made here, so that its ARN can be written into a file before the sandbox starts."""


def add_queue(sandbox: Sandbox, text: str) -> Queue:
    """``NAME[,Attribute=VALUE…][,dead_letters=QUEUE][,max_receives=N]``; attributes are AWS's."""
    name, *settings = text.split(",")
    attributes: dict[str, object] = dict(_pair(one) for one in settings)
    letters = attributes.pop("dead_letters", None)
    receives = attributes.pop("max_receives", 5)
    redrive_to = None if letters is None else sandbox.sqs.queue(str(letters))
    return sandbox.sqs.create_queue(
        name, redrive_to=redrive_to, max_receives=_count(str(receives), "max_receives"), **attributes
    )


def add_stream(sandbox: Sandbox, text: str) -> None:
    """``NAME[:SHARDS]``, one shard by default."""
    name, _, shards = text.partition(":")
    sandbox.kinesis.create_stream(name, _count(shards or "1", "shards"))


def add_table(sandbox: Sandbox, text: str) -> None:
    """``NAME[:SHARDS]``: key ``pk`` (text), a stream of new and old images whose label is STREAM_LABEL."""
    name, _, shards = text.partition(":")
    table = sandbox.dynamodb.create_table(name, stream="NEW_AND_OLD_IMAGES", shards=_count(shards or "1", "shards"))
    assert table.stream is not None
    table.stream.arn = table.stream.arn.replace(table.stream.label, STREAM_LABEL)
    table.stream.label = STREAM_LABEL


def add_function(sandbox: Sandbox, text: str, seconds: float) -> Function:
    """``NAME=module:function`` (importable from the working directory; sync ones run in threads), or a ready-made kind.

    Kinds are those of ``functions``: ``NAME=ok``, ``NAME=fail_if:poison,ids``.
    """
    name, spec = _pair(text)
    if spec.partition(",")[0].partition(":")[0] in WORDS:
        return add_kind(sandbox.functions, name, spec, seconds)
    handler = named(spec)
    threaded = not inspect.iscoroutinefunction(handler)
    return sandbox.functions.add_function(name, handler, timeout=seconds, threaded=threaded)


def add_fault(sandbox: Sandbox, text: str) -> faults.Fault:
    """``OPERATION=EFFECT[@CALLS]``: ``lambda:*=throttle:2@first:3``, ``sqs:DeleteMessage=lose_reply@every:10``.

    CALLS: always, every:N, first:N, after:N, nth:N+M.  Effects are those of ``faults``.
    """
    operation, rest = _pair(text)
    effect, _, calls = rest.partition("@")
    return sandbox.faults.add(faults.Fault(operation, _effect(effect), _calls(calls or "always")))


def generate(sandbox: Sandbox, text: str) -> None:
    """``sqs|kinesis|dynamodb:NAME:COUNT[:BYTES][@RATE]``: COUNT records in all, made when read and then forgotten.

    BYTES is the size of one (1024), RATE how many arrive each second (default: all are there at once).
    """
    text, _, rate_text = text.partition("@")
    service, name, count_text, size_text = [*text.split(":"), "", "", ""][:4]
    count, size = _count(count_text, "records"), _count(size_text or "1024", "bytes")
    rate = float(rate_text) if rate_text else None
    match service:
        case "sqs":
            queue = sandbox.sqs.queue(name)
            if isinstance(queue, FifoQueue):
                raise ValueError(f"{name} is a FIFO queue; only standard queues are generated.")
            queue.supply = Supply(sandbox.world, count, size=size, rate=rate)
        case "kinesis":
            stream = sandbox.kinesis.stream(name)
            shards = len(stream.open_shards())
            stream.generate(_share(count, shards, name), size=size, rate=rate and rate / shards)
        case "dynamodb":
            table = sandbox.dynamodb.table(name)
            if table.stream is None:
                raise ValueError(f"Table {name} has no stream.")
            shards = len(table.stream.open_shards())
            table.stream.generate(_share(count, shards, name), size=size, rate=rate and rate / shards)
        case other:
            raise ValueError(f"{other!r} cannot be generated; expected sqs, kinesis or dynamodb.")


def named(text: str) -> Callable[..., object]:
    """What ``module:function`` names, imported from the working directory or Python's path."""
    module, found, name = text.partition(":")
    if not found:
        raise ValueError(f"{text!r}: expected module:function, or one of {', '.join(sorted(WORDS))}.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{text}: {error}") from error
    if not callable(function):
        raise ValueError(f"{text} is of type {type(function).__name__}, expected a function.")
    return function


def _effect(text: str) -> faults.Effect:
    name, _, value = text.partition(":")
    match name:
        case "throttle":
            return faults.Throttle(float(value) if value else None)
        case "server_error":
            return faults.ServerError(int(value or "500"))
        case "fail" if value:
            return faults.Fail(value)
        case "delay":
            return faults.Delay(float(value))
        case "hang":
            return faults.Hang()
        case "hang_after":
            return faults.Hang(after_effect=True)
        case "drop":
            return faults.Drop()
        case "lose_reply":
            return faults.LoseReply()
        case "garbage":
            return faults.Garbage()
        case "fail_entries":
            return faults.FailEntries()
        case _:
            raise ValueError(
                f"{text!r} is no effect; expected throttle[:RETRY_AFTER], server_error[:STATUS], fail:CODE, "
                "delay:SECONDS, hang, hang_after, drop, lose_reply, garbage or fail_entries."
            )


def _calls(text: str) -> faults.Calls:
    name, _, value = text.partition(":")
    match name:
        case "always":
            return faults.always
        case "every":
            return faults.every(_count(value, "calls"))
        case "first":
            return faults.first(_count(value, "calls"))
        case "after":
            return faults.after(_count(value, "calls"))
        case "nth":
            return faults.nth(*(_count(one, "calls") for one in value.split("+")))
        case _:
            raise ValueError(f"{text!r} tells no calls; expected always, every:N, first:N, after:N or nth:N+M.")


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found and value):
        raise ValueError(f"{text!r}: expected NAME=VALUE.")
    return name, value


def _count(text: str, what: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"{text!r} is no number of {what}; expected a whole number above 0.")
    return int(text)


def _share(count: int, shards: int, name: str) -> int:
    if count % shards:
        raise ValueError(f"{count} records cannot be shared equally by the {shards} shards of {name}.")
    return count // shards
