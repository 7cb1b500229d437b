"""Prometheus' own linter reads what `/metrics` shows."""

import subprocess

import pytest
from prometheus_client import generate_latest

from esm.telemetry.metrics import MappingMetrics, Metrics
from tests.integration.tools import require


def promtool(exposition: bytes) -> tuple[int, str]:
    """Exit code and findings of ``promtool check metrics``."""
    require("promtool")
    ran = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False)
    return ran.returncode, (ran.stdout + ran.stderr).decode()


def used(mapping: MappingMetrics) -> None:
    """Every metric of a mapping has been written to."""
    for counters in (mapping.settled, mapping.invocations, mapping.polls, mapping.destination):
        for counter in counters.values():
            counter.inc()
    for counter in (mapping.polled, mapping.deletes_failed, mapping.expired):
        counter.inc(3)
    for histogram in (mapping.duration, mapping.batch_records, mapping.batch_bytes):
        histogram.observe(2.5)
    mapping.in_flight.set(1)
    mapping.lanes.set(4)
    mapping.age_is(lambda: 12.25)
    mapping.lag_is(100)


def test_promtool_finds_nothing_to_say_about_a_worker_that_has_just_started() -> None:
    metrics = Metrics("0.1.0")
    metrics.mapping("orders", "sqs")
    metrics.mapping("clicks", "kinesis")
    assert promtool(generate_latest(metrics.registry)) == (0, "")


def test_promtool_finds_nothing_to_say_about_a_worker_that_has_worked() -> None:
    metrics = Metrics("0.1.0")
    for name, source in (("orders", "sqs"), ("clicks", "kinesis"), ('quoted "name" \\ ü', "kafka")):
        used(metrics.mapping(name, source))
    metrics.buffered.set(1024)
    assert promtool(generate_latest(metrics.registry)) == (0, "")


@pytest.mark.parametrize(
    "exposition, finding",
    [
        (b"# TYPE esm_records counter\nesm_records 1\n", "counter metrics should have"),
        (b"esm records 1\n", "error while linting"),
    ],
    ids=["a name against the habit", "not even metrics"],
)
def test_promtool_would_say_what_is_wrong(exposition: bytes, finding: str) -> None:
    code, said = promtool(exposition)
    assert code != 0
    assert finding in said
