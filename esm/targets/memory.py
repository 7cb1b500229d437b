"""A target that answers by rule: for tests and simulation, on asyncio and trio alike."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

import anyio
import anyio.lowlevel

from esm.domain.errors import NotReady
from esm.domain.outcome import Failed, Outcome, Succeeded
from esm.ports import Invocation, TimeLimit
from esm.targets.answers import DEFAULT_SECONDS

Rule = Callable[[Invocation], Outcome | Awaitable[Outcome]]
"""What an attempt ends as; a rule that has to wait is async, and its attempt times out as any other."""


def succeed(_call: Invocation) -> Outcome:
    """The rule of a target that never fails."""
    return Succeeded(b"null")


class MemoryTarget:
    """Answers as ``rule`` says and remembers what it was asked.  Change the attributes at any time."""

    def __init__(
        self,
        rule: Rule = succeed,
        *,
        function_arn: str = "arn:aws:lambda:eu-west-1:123456789012:function:memory",
        seconds: float = DEFAULT_SECONDS,
        required: float | None = None,
        keep: int = 100_000,
    ) -> None:
        self.rule = rule
        self.seconds = seconds
        self.required = required
        self.not_ready: str | None = None
        """A sentence while the target is missing; ``time_limit`` raises it."""
        self.calls: list[Invocation] = []
        """The first ``keep`` attempts, in order of their start."""
        self.started = 0
        """Attempts so far."""
        self.running = 0
        """Attempts that have not ended."""
        self.most_running = 0
        self._function_arn = function_arn
        self._keep = keep

    @property
    def function_arn(self) -> str:
        """The ARN failure records name."""
        return self._function_arn

    @property
    def role(self) -> str | None:
        """None: it runs as nobody that AWS knows."""
        return None

    async def time_limit(self) -> TimeLimit:
        """As the attributes say.  Raises NotReady while ``not_ready`` is set."""
        await anyio.lowlevel.checkpoint()
        if self.not_ready is not None:
            raise NotReady(self.not_ready)
        return TimeLimit(self.seconds, self.required)

    async def invoke(self, call: Invocation) -> Outcome:
        """The outcome of ``rule``; Failed with ``timed_out`` where that takes longer than ``call.seconds``."""
        self.started += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if len(self.calls) < self._keep:
            self.calls.append(call)
        try:
            await anyio.lowlevel.checkpoint()  # as a real target, it always lets others run
            with anyio.move_on_after(call.seconds):
                outcome = self.rule(call)
                return await outcome if isawaitable(outcome) else outcome
            return Failed(f"The target did not answer within {call.seconds:g} s.", timed_out=True)
        finally:
            self.running -= 1
