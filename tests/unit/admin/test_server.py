"""What probes, Prometheus and people are answered."""

from collections.abc import AsyncIterator, Sequence

import aiohttp
import anyio
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from esm.admin.server import AdminNotServed, serve
from esm.admin.status import Health
from esm.engine.status import MappingStatus
from esm.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

ORDERS = MappingStatus("orders", "sqs orders", "running", True, None, 1)
CLICKS = MappingStatus("clicks", "kinesis clicks", "waiting", False, "Stream clicks does not exist: <create> it.", 0)


class World:
    """A worker whose health is what the test says, and its admin server."""

    def __init__(self) -> None:
        self.metrics = Metrics("9.9.9")
        self.health = Health((ORDERS,))
        self.url = ""

    def asked(self) -> Health:
        return self.health

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, content type, body."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.url + path, headers={"Accept": "*/*", **headers}) as answer,
        ):
            return answer.status, answer.headers["Content-Type"], await answer.text()

    async def json(self, path: str) -> tuple[int, dict[str, Sequence[dict[str, object]]]]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    async with serve("127.0.0.1", 0, world.metrics.registry, world.asked) as port:
        world.url = f"http://127.0.0.1:{port}"
        yield world


async def test_healthz_answers_while_the_loop_lives_whatever_the_mappings_do(world: World) -> None:
    world.health = Health((CLICKS,), draining=True)
    status, _, _ = await world.get("/healthz")
    assert status == 200


async def test_readyz_is_200_when_every_mapping_is_ready(world: World) -> None:
    assert await world.json("/readyz") == (
        200,
        {"ready": True, "draining": False, "mappings": [{"name": "orders", "ready": True, "why": None}]},
    )


async def test_readyz_is_503_and_says_which_mapping_is_not_ready_and_why(world: World) -> None:
    world.health = Health((ORDERS, CLICKS))
    status, answer = await world.json("/readyz")
    assert (status, answer["ready"]) == (503, False)
    assert answer["mappings"] == [
        {"name": "orders", "ready": True, "why": None},
        {"name": "clicks", "ready": False, "why": "Stream clicks does not exist: <create> it."},
    ]


async def test_readyz_is_503_while_draining(world: World) -> None:
    world.health = Health((ORDERS,), draining=True)
    status, answer = await world.json("/readyz")
    assert (status, answer["ready"], answer["draining"]) == (503, False, True)


async def test_readyz_is_asked_anew_each_time(world: World) -> None:
    world.health = Health((CLICKS,))
    before, _, _ = await world.get("/readyz")
    world.health = Health((ORDERS,))
    after, _, _ = await world.get("/readyz")
    assert (before, after) == (503, 200)


async def test_metrics_are_what_prometheus_reads(world: World) -> None:
    world.metrics.mapping("orders", "sqs").polled.inc(7)
    status, kind, text = await world.get("/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["esm_records_polled_total", "orders", "sqs"] == 7
    assert samples["esm_build_info", "9.9.9"] == 1


async def test_metrics_come_as_openmetrics_to_who_asks_for_that(world: World) -> None:
    _, kind, text = await world.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


async def test_mappings_are_listed_with_all_that_is_known(world: World) -> None:
    world.health = Health((ORDERS, CLICKS))
    status, answer = await world.json("/api/v1/mappings")
    assert status == 200
    assert answer["mappings"] == [
        {"name": "orders", "source": "sqs orders", "state": "running", "ready": True, "why": None, "lanes": 1},
        {
            "name": "clicks",
            "source": "kinesis clicks",
            "state": "waiting",
            "ready": False,
            "why": "Stream clicks does not exist: <create> it.",
            "lanes": 0,
        },
    ]


async def test_the_page_shows_the_mappings_links_on_and_escapes_what_it_is_told(world: World) -> None:
    world.health = Health((ORDERS, CLICKS))
    status, kind, page = await world.get("/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "esm: not ready" in page
    assert "&lt;create&gt; it." in page
    for link in ("/metrics", "/readyz", "/healthz", "/api/v1/mappings"):
        assert f'href="{link}"' in page
        assert (await world.get(link))[0] in (200, 503)


async def test_nothing_can_be_changed_and_nothing_else_is_there(world: World) -> None:
    assert (await world.get("/etc/passwd"))[0] == 404
    async with aiohttp.ClientSession() as session, session.post(world.url + "/api/v1/mappings") as answer:
        assert answer.status == 405


async def test_a_port_in_use_is_a_sentence_that_names_it(world: World) -> None:
    port = int(world.url.rpartition(":")[2])
    with pytest.raises(
        AdminNotServed, match=rf"cannot listen on 127\.0\.0\.1:{port} \(Address already in use\): free the address"
    ):
        async with serve("127.0.0.1", port, CollectorRegistry(), Health):
            pass


async def test_a_host_that_is_not_here_is_a_sentence() -> None:
    with pytest.raises(AdminNotServed, match=r"cannot listen on 192\.0\.2\.1:8080 \(Cannot assign requested address\)"):
        async with serve("192.0.2.1", 8080, CollectorRegistry(), Health):
            pass


async def test_a_host_without_an_address_is_a_sentence() -> None:
    with pytest.raises(AdminNotServed, match=r"cannot listen on \[no:host\]:8080 \(.*[Nn]ame.*\): free the address"):
        async with serve("no:host", 8080, CollectorRegistry(), Health):
            pass


async def test_the_port_is_free_again_when_the_server_was_closed_or_cancelled() -> None:
    async with serve("127.0.0.1", 0, CollectorRegistry(), Health) as port:
        pass
    with anyio.CancelScope() as scope:
        async with serve("127.0.0.1", port, CollectorRegistry(), Health) as again:
            assert again == port
            scope.cancel()
            await anyio.sleep_forever()
    async with serve("127.0.0.1", port, CollectorRegistry(), Health) as again:
        assert again == port
