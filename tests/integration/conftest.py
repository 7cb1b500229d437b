"""Real services as fixtures.  Each is started when a test first asks for it and keeps its data for the tests after it.

One Java server runs at a time, on the whole machine: tests that ask for the same one come in a row, another one's turn
stops it (DynamoDB Local and ElasticMQ forget everything then), and a second test run waits for the first.  Programs are
fetched before the first test, outside of its time limit.  When a test fails, what its services printed during the test
is shown with it.
"""

import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.integration.kafka import Kafka
from tests.integration.processes import Server
from tests.integration.running import KINDS, Services
from tests.integration.services import DynamoDbLocal, ElasticMq, Kinesalite

RUN = pytest.StashKey[Services]()
USED = pytest.StashKey[dict[Server, int]]()
"""The servers a test uses, and how long their logs were when it began."""

HERE = Path(__file__).parent


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one Java server in a row, else in the (random) order they had."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(HERE)]
    turns = dict.fromkeys(_java(items[place]) for place in places)
    ordered = [items[place] for turn in turns for place in places if _java(items[place]) == turn]
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have everything at hand before the clock of the first test runs."""
    if session.config.option.collectonly:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    services = Services(reporter.write_line if reporter else print)
    session.config.stash[RUN] = services
    session.config.add_cleanup(services.close)
    names = {name for item in session.items if item.path.is_relative_to(HERE) for name in _services(item)}
    services.prepare(sorted(names))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers of a failed test printed meanwhile."""
    report = yield
    if report.failed:
        for server, since in item.stash.get(USED, {}).items():
            report.sections.append((f"{server.name} printed", server.log(since) or "nothing"))
    return report


@pytest.fixture
def unique() -> str:
    """A name that no other test has: for topics, queues, tables and streams."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """Apache Kafka with its listeners; topics need names of their own."""
    yield from cast("Iterator[Kafka]", _lent("kafka", request))


@pytest.fixture
def dynamodb_local(request: pytest.FixtureRequest) -> Iterator[DynamoDbLocal]:
    """DynamoDB Local, ``endpoint`` for tables and streams; tables need names of their own."""
    yield from cast("Iterator[DynamoDbLocal]", _lent("dynamodb_local", request))


@pytest.fixture
def elasticmq(request: pytest.FixtureRequest) -> Iterator[ElasticMq]:
    """ElasticMQ at ``endpoint``; queues need names of their own."""
    yield from cast("Iterator[ElasticMq]", _lent("elasticmq", request))


@pytest.fixture
def kinesalite(request: pytest.FixtureRequest) -> Iterator[Kinesalite]:
    """Kinesalite at ``endpoint``; streams need names of their own."""
    yield from cast("Iterator[Kinesalite]", _lent("kinesalite", request))


def _lent(name: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    assert len([each for each in request.fixturenames if each in KINDS and KINDS[each].java]) <= 1, (
        "a test may use one Java server, because one runs at a time"
    )
    server = request.config.stash[RUN].use(name)
    request.node.stash.setdefault(USED, {})[server] = server.log_position()
    yield server
    if server.running:
        server.thaw()  # nobody else should meet a frozen one


def _services(item: pytest.Item) -> list[str]:
    return [name for name in getattr(item, "fixturenames", ()) if name in KINDS]


def _java(item: pytest.Item) -> str:
    """The Java server that a test uses; empty if none."""
    return next((name for name in _services(item) if KINDS[name].java), "")
