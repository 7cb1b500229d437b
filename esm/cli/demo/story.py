"""What happens, in plain words: the worker's own log events, told for people."""

import re
from collections import deque
from collections.abc import MutableMapping

import structlog

MOST = 6
"""Sentences that are remembered."""


class Story:
    """A structlog processor that keeps the last sentences and lets no line through."""

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=MOST)
        self.told = 0
        """Sentences so far."""
        self._shards: dict[str, int] = {}

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, object]) -> str:
        """Take one log event.  Always raises structlog.DropEvent."""
        if (sentence := self._tell(event)) is not None:
            self.last.append(sentence)
            self.told += 1
        raise structlog.DropEvent

    def _tell(self, event: MutableMapping[str, object]) -> str | None:
        where = f"{event.get('mapping')} {self._lane(str(event.get('lane', '')))}".strip()
        records = event.get("records", 0)
        match event.get("event"):
            case "attempt_failed":
                return f"{where}: batch of {records} failed ({_why(str(event.get('error')))}){_then(event)}"
            case "records_discarded":
                what = "1 record" if records == 1 else f"{records} records"
                return f"{where}: {what} given up ({event.get('reason')}), kept in the queue 'failed'"
            case "mapping_not_ready" | "lane_closed":
                return f"{where}: {event.get('why')}"
            case "failure_record_not_stored" | "mapping_failed" | "lease_store_failed":
                return f"{where}: {event.get('event')}: {event.get('error') or event.get('why')}"
            case _:
                return None

    def _lane(self, name: str) -> str:
        """``shard 1`` as Kinesis numbers it; the shards of a table bear a time, so they are numbered as they come."""
        if found := re.fullmatch(r"shardId-0*(\d+)(-.+)?", name):
            number = self._shards.setdefault(name, len(self._shards)) if found[2] else int(found[1])
            return f"shard {number}"
        if found := re.fullmatch(r".+-(\d+)", name):
            return f"partition {found[1]}"
        return ""


def _then(event: MutableMapping[str, object]) -> str:
    if event.get("outcome") == "partial":
        return ", the rest is done" if event.get("records") != 1 else ""
    return ", halved" if event.get("records") != 1 else ""


def _why(error: str) -> str:
    """``ValueError: poison`` of ``The function failed (Unhandled): ValueError: poison``."""
    error = re.sub(r"^The function failed \(\w+\): ", "", error).rstrip(".")
    return re.sub(r"^The target reported (\d+) \w+ as failed$", r"\1 reported", error)
