"""A small local AWS in one process: real clients speak to it by ``endpoint_url``; for the demo, tests and load tests.

Nothing above imports this room but the demo.  It holds everything in memory, follows AWS where a worker can tell the
difference, and makes calls go wrong by script (``faults``).
"""

from esm.sandbox.clock import SandboxClock
from esm.sandbox.faults import (
    Delay,
    Drop,
    Fail,
    FailEntries,
    Fault,
    Garbage,
    Hang,
    LoseReply,
    ServerError,
    Throttle,
    after,
    always,
    every,
    first,
    nth,
)
from esm.sandbox.server import Sandbox
from esm.sandbox.wire import AwsError

__all__ = [
    "AwsError",
    "Delay",
    "Drop",
    "Fail",
    "FailEntries",
    "Fault",
    "Garbage",
    "Hang",
    "LoseReply",
    "Sandbox",
    "SandboxClock",
    "ServerError",
    "Throttle",
    "after",
    "always",
    "every",
    "first",
    "nth",
]
