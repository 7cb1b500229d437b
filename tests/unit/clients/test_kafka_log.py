"""What aiokafka logs reaches the mapping whose consumer it was."""

import asyncio
import logging

import pytest
from structlog.testing import capture_logs

from esm.clients.kafka_log import KafkaLog

pytestmark = pytest.mark.anyio

CLIENT = logging.getLogger("aiokafka.client")


async def test_each_consumer_hears_its_own_tasks_for_ever() -> None:
    one, two = KafkaLog("one"), KafkaLog("two")
    go = asyncio.Event()

    async def later(text: str) -> None:
        await go.wait()
        CLIENT.error("Unable connect to %s", text)

    with capture_logs() as lines:
        tasks = []
        for log in (one, two):
            with log.listening():
                tasks.append(asyncio.create_task(later(str(log.reasons.maxlen) + log._mapping)))
        go.set()
        await asyncio.gather(*tasks)
    assert (list(one.reasons), list(two.reasons)) == (["Unable connect to 20one"], ["Unable connect to 20two"])
    assert [(line["event"], line["mapping"], line["log_level"]) for line in lines] == [
        ("kafka_client_troubled", "one", "warning"),
        ("kafka_client_troubled", "two", "warning"),
    ]


async def test_a_trouble_that_goes_on_is_logged_once_a_minute_and_not_at_all_while_connecting() -> None:
    log = KafkaLog("one")
    with capture_logs() as lines, log.listening():
        log.quiet = True
        for number in range(50):
            CLIENT.error("Failed fetch %s", number)
            log.quiet = number < 10
        CLIENT.info("Healthy.")
    assert len(lines) == 1
    assert list(log.reasons)[-1] == "Failed fetch 49"


async def test_the_cause_that_the_library_leaves_out_is_kept() -> None:
    log = KafkaLog("one")
    error = ConnectionError("Connection closed")
    error.__cause__ = OSError("certificate required")
    with log.listening():
        CLIENT.error("Unable connect: %s", error)
        CLIENT.error("Unable connect: %s", TimeoutError())
    assert list(log.reasons) == [
        "Unable connect: Connection closed: OSError('certificate required')",
        "Unable connect: TimeoutError()",
    ]


async def test_the_log_of_somebody_elses_consumer_goes_where_it_went(caplog: pytest.LogCaptureFixture) -> None:
    log = KafkaLog("one")
    with log.listening():
        pass
    CLIENT.error("A handler's own consumer")
    assert "A handler's own consumer" in caplog.messages
    assert list(log.reasons) == []
