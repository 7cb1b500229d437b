"""The metrics of a worker: declared once here, exported as zero from the start.

Labels come from the configuration, never from a record.  Children are kept per mapping and incremented once a chunk or
batch: ``.labels()`` on the path of a record would cost more than the record.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

OUTCOMES = ("delivered", "filtered", "discarded")
INVOCATION_OUTCOMES = ("success", "partial", "failed", "timeout", "throttled", "refused")
POLL_OUTCOMES = ("records", "empty", "error")
DESTINATION_OUTCOMES = ("stored", "unavailable", "rejected", "dropped")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
_RECORDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
_BYTES = (1024, 4096, 16384, 65536, 262144, 1048576, 2097152, 4194304, 6291456)


class Metrics:
    """All metrics of one worker, on a registry of their own."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one function untyped
        self.registry = registry = CollectorRegistry()
        each = ["mapping"]
        self.polled = Counter(
            "esm_records_polled_total", "Records read from the source.", ["mapping", "source"], registry=registry
        )
        self.settled = Counter(
            "esm_records_settled_total", "Records that ended, by how.", ["mapping", "outcome"], registry=registry
        )
        self.invocations = Counter(
            "esm_invocations_total",
            "Attempts to invoke the target, by result.",
            ["mapping", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "esm_invocation_duration_seconds",
            "Seconds from sending an event to the target's answer.",
            each,
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_records = Histogram(
            "esm_batch_records", "Records in an invocation.", each, buckets=_RECORDS, registry=registry
        )
        self.batch_bytes = Histogram(
            "esm_batch_bytes", "Bytes of the event of an invocation.", each, buckets=_BYTES, registry=registry
        )
        self.in_flight = Gauge(
            "esm_in_flight_batches", "Batches being delivered, waits for a retry included.", each, registry=registry
        )
        self.iterator_age = Gauge(
            "esm_iterator_age_seconds",
            "Age of the oldest record that is not settled; 0 when caught up.",
            each,
            registry=registry,
        )
        self.lag = Gauge(
            "esm_lag_records",
            "Records in the source behind what was read, where the source tells.",
            each,
            registry=registry,
        )
        self.polls = Counter(
            "esm_polls_total", "Reads of the source, by result.", ["mapping", "outcome"], registry=registry
        )
        self.deletes_failed = Counter(
            "esm_deletes_failed_total", "Queue messages whose delete failed after all tries.", each, registry=registry
        )
        self.destination = Counter(
            "esm_failure_destination_total",
            "Tries to store a failure record, by result.",
            ["mapping", "outcome"],
            registry=registry,
        )
        self.expired = Counter(
            "esm_positions_expired_total",
            "Times a lane's position had left the source and reading went on behind the gap.",
            each,
            registry=registry,
        )
        self.lanes = Gauge("esm_lanes_owned", "Lanes this worker reads.", each, registry=registry)
        self.buffered = Gauge(
            "esm_buffered_bytes", "Bytes of records in memory, all mappings together.", registry=registry
        )
        build = Gauge("esm_build_info", "Always 1; the version is a label.", ["version"], registry=registry)
        build.labels(version).set(1)

    def mapping(self, name: str, source: str) -> "MappingMetrics":
        """The children of one mapping; creating them exports their zeros."""
        return MappingMetrics(self, name, source)


class MappingMetrics:
    """The numbers of one mapping."""

    def __init__(self, metrics: Metrics, name: str, source: str) -> None:
        self._lag_family = metrics.lag
        self._lags: dict[str, int] = {}
        self._name = name
        self.polled = metrics.polled.labels(name, source)
        self.settled = {outcome: metrics.settled.labels(name, outcome) for outcome in OUTCOMES}
        self.invocations = {outcome: metrics.invocations.labels(name, outcome) for outcome in INVOCATION_OUTCOMES}
        self.polls = {outcome: metrics.polls.labels(name, outcome) for outcome in POLL_OUTCOMES}
        self.destination = {outcome: metrics.destination.labels(name, outcome) for outcome in DESTINATION_OUTCOMES}
        self.duration = metrics.duration.labels(name)
        self.batch_records = metrics.batch_records.labels(name)
        self.batch_bytes = metrics.batch_bytes.labels(name)
        self.in_flight = metrics.in_flight.labels(name)
        self.iterator_age = metrics.iterator_age.labels(name)
        self.deletes_failed = metrics.deletes_failed.labels(name)
        self.expired = metrics.expired.labels(name)
        self.lanes = metrics.lanes.labels(name)

    def age_is(self, age: Callable[[], float]) -> None:
        """Ask ``age`` for `esm_iterator_age_seconds` at each scrape: it grows while nothing happens."""
        self.iterator_age.set_function(age)

    def lag_is(self, records: int, lane: str = "") -> None:
        """Records of ``lane`` that are not read yet; `esm_lag_records` is their sum, absent until a source told it."""
        self._lags[lane] = records
        self._lag_family.labels(self._name).set(sum(self._lags.values()))

    def lag_ends(self, lane: str) -> None:
        """``lane`` is read by us no more: what lies in it is another's to tell."""
        if self._lags.pop(lane, None) is not None:
            self._lag_family.labels(self._name).set(sum(self._lags.values()))
