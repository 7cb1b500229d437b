"""The calls of one shard in memory, on any loop: answers what a test says, and notes when it was asked."""

from collections import deque
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from botocore.exceptions import ClientError, ReadTimeoutError

from esm.clients.aws_errors import Subject
from esm.domain.leasing import HORIZON, Start
from esm.domain.record import LaneId, Record
from esm.sources.shards import Pace, PacedReader, Page, ReadFailures
from esm.telemetry.metrics import Metrics
from tests.support.time import LoopClock

LANE = LaneId("clicks", "shard-7")
SUBJECT = Subject("kinesis", "Shard shard-7 of Kinesis stream clicks", "eu-west-1")
PACE = Pace(busy=0.2, idle=1.0)


def record(position: int, entry: bytes = b"{}", arrived_at: float = 0.0) -> Record:
    """A record of the lane."""
    return Record(LANE, position, 0, str(position), None, arrived_at, entry)


def page(*positions: int, behind: float | None = 0.0, entry: bytes = b"{}") -> Page:
    """A reply with records at ``positions``, after which reading goes on."""
    records = [record(position, entry) for position in positions]
    return Page(records, positions[-1] if positions else None, len(positions), "next", behind)


def end(*positions: int, children: tuple[str, ...] = ()) -> Page:
    """The last reply of a closed shard."""
    records = [record(position) for position in positions]
    return Page(records, positions[-1] if positions else None, len(positions), None, 0.0, children)


def error(code: str, status: int = 400, operation: str = "GetRecords") -> ClientError:
    """An error that the service answers."""
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RequestId": "", "HostId": "", "RetryAttempts": 0}
    return ClientError({"Error": {"Code": code, "Message": "by script"}, "ResponseMetadata": metadata}, operation)


def no_answer() -> ReadTimeoutError:
    """The service did not answer in time."""
    return ReadTimeoutError(endpoint_url="https://kinesis.eu-west-1.amazonaws.com/")


class ScriptedCalls:
    """``ShardCalls`` that answer one script entry after the other, then ``rest`` for ever."""

    most = 1000

    def __init__(self, *script: Page | Exception, rest: Page | Exception | None = None) -> None:
        self.script: deque[Page | Exception] = deque(script)
        self.rest = rest or page()
        self.iterator_errors: deque[Exception] = deque()
        """What asking for an iterator raises, one call after the other."""
        self.starts: list[Start] = []
        """Where iterators were asked for."""
        self.asked: list[float] = []
        """When records were asked for (elapsed)."""
        self.limits: list[int] = []
        self.moments: list[float | None] = []

    async def iterator(self, start: Start) -> str:
        """See ShardCalls."""
        await anyio.lowlevel.checkpoint()
        self.starts.append(start)
        if self.iterator_errors:
            raise self.iterator_errors.popleft()
        return "first"

    async def page(self, iterator: str, limit: int, moment: float | None) -> Page:
        """See ShardCalls."""
        await anyio.lowlevel.checkpoint()
        self.asked.append(anyio.current_time())
        self.limits.append(limit)
        self.moments.append(moment)
        answer = self.script.popleft() if self.script else self.rest
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    """A reader over scripted calls."""

    def __init__(self, *script: Page | Exception, rest: Page | Exception | None = None, start: Start = HORIZON) -> None:
        self.calls = ScriptedCalls(*script, rest=rest)
        self.clock = LoopClock()
        self._metrics = Metrics("0")
        failures = ReadFailures(LANE, self.clock, lambda: 0.5, self._metrics.mapping("clicks", "kinesis"))
        self.reader = PacedReader(self.calls, SUBJECT, start, PACE, self.clock, failures)

    @property
    def errors(self) -> float | None:
        """`esm_polls_total` of errors."""
        labels = {"mapping": "clicks", "outcome": "error"}
        return self._metrics.registry.get_sample_value("esm_polls_total", labels)

    async def positions(self, reads: int, wait: float = 5.0) -> Sequence[int]:
        """Positions that ``reads`` reads bring."""
        return [one.position for _ in range(reads) for one in (await self.reader.read(1000, 10**6, wait)).records]
