"""What aiokafka says only in its log: why it cannot connect, and what troubles it later."""

import logging
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

log = structlog.get_logger()

AGAIN_SECONDS = 60.0
"""A trouble that goes on is logged so often, not ten times a second."""

_mine: ContextVar["KafkaLog | None"] = ContextVar("kafka_log", default=None)


class KafkaLog:
    """The log of one consumer: tasks that it starts while ``listening`` belong to it for ever."""

    def __init__(self, mapping: str) -> None:
        self.reasons: deque[str] = deque(maxlen=20)
        """The last warnings and errors, oldest first."""
        self.quiet = False
        """While connecting: whoever connects says what went wrong."""
        self._mapping = mapping
        self._said: dict[str, float] = {}

    @contextmanager
    def listening(self) -> Generator[None]:
        """Hear what aiokafka logs in this block, and in tasks that were started in it."""
        _listen()
        token = _mine.set(self)
        try:
            yield
        finally:
            _mine.reset(token)

    def hear(self, record: logging.LogRecord) -> None:
        """Take one warning or error."""
        message = " ".join(record.getMessage().split())
        for cause in _causes(record):
            message = f"{message.rstrip(': ')}: {cause!r}"
        self.reasons.append(message)
        now = time.monotonic()
        kind = f"{record.name}:{record.lineno}"
        if not self.quiet and now - self._said.get(kind, float("-inf")) >= AGAIN_SECONDS:
            self._said[kind] = now
            log.warning("kafka_client_troubled", mapping=self._mapping, error=message)


def _causes(record: logging.LogRecord) -> Generator[BaseException]:
    """The errors behind the one that is named: a refused certificate reads "connection closed" otherwise."""
    if record.exc_info and record.exc_info[1] is not None:
        yield record.exc_info[1]
    for named in record.args if isinstance(record.args, tuple) else ():
        if not isinstance(named, BaseException):
            continue
        if not str(named):
            yield named
        cause = named.__cause__
        while cause is not None:
            yield cause
            cause = cause.__cause__


class _Handler(logging.Handler):
    """Gives each record to the log of the consumer whose task wrote it."""

    def emit(self, record: logging.LogRecord) -> None:
        owner = _mine.get()
        if owner is None:  # somebody else's consumer in this process: as if we were not here
            logging.getLogger().handle(record)
        elif record.levelno >= logging.WARNING:
            owner.hear(record)


_HANDLER = _Handler()


def _listen() -> None:
    logger = logging.getLogger("aiokafka")
    if _HANDLER not in logger.handlers:
        logger.addHandler(_HANDLER)
        logger.propagate = False
