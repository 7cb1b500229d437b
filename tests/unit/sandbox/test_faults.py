"""Faults by script: which call goes wrong, and what is left of it."""

import anyio
import pytest

from esm.sandbox import (
    Delay,
    Drop,
    Fail,
    FailEntries,
    Fault,
    Garbage,
    Hang,
    LoseReply,
    Sandbox,
    ServerError,
    Throttle,
    after,
    always,
    every,
    first,
    nth,
)
from esm.sandbox.faults import Calls, Effect, Faults
from esm.sandbox.wire import AwsError, ConnectionDropped, Exchange, Reply, encoded

pytestmark = pytest.mark.anyio


def exchange(operation: str = "sqs:SendMessage", body: bytes = b"{}", done: list[bytes] | None = None) -> Exchange:
    async def perform(body: bytes) -> Reply:
        if done is not None:
            done.append(body)
        return Reply(200, b'{"ok":true}', {})

    return Exchange(operation, body, perform, lambda error: Reply(error.status, b"", {}))


# -- which


@pytest.mark.parametrize(
    "calls,numbers",
    [
        (always, [1, 2, 3, 4, 5, 6]),
        (every(3), [3, 6]),
        (nth(2, 5), [2, 5]),
        (first(2), [1, 2]),
        (after(4), [5, 6]),
    ],
)
def test_calls_are_picked_by_number_among_those_that_match(calls: Calls, numbers: list[int]) -> None:
    faults = Faults()
    fault = faults.add(Fault("sqs:SendMessage", Drop(), calls))
    caught = []
    for number in range(1, 7):
        assert faults.draw(exchange("sqs:ReceiveMessage")) is None
        if faults.draw(exchange()) is not None:
            caught.append(number)
    assert caught == numbers
    assert (fault.seen, fault.hits) == (6, len(numbers))


@pytest.mark.parametrize(
    "pattern,matches",
    [("sqs:*", True), ("*", True), ("sqs:Send*", True), ("*:SendMessage", True), ("kinesis:*", False)],
)
def test_operations_are_named_as_files_are(pattern: str, *, matches: bool) -> None:
    faults = Faults()
    faults.add(Fault(pattern, Drop()))
    assert (faults.draw(exchange()) is not None) == matches


def test_a_call_is_narrowed_by_what_it_holds_and_only_those_are_counted() -> None:
    faults = Faults()
    faults.add(Fault("sqs:*", Drop(), nth(1), where=lambda call: call.json().get("QueueUrl") == "orders"))
    assert faults.draw(exchange(body=b'{"QueueUrl": "others"}')) is None
    assert faults.draw(exchange(body=b"no json")) is None
    assert faults.draw(exchange(body=b'{"QueueUrl": "orders"}')) == Drop()
    assert faults.draw(exchange(body=b'{"QueueUrl": "orders"}')) is None


def test_the_first_fault_that_catches_a_call_decides_and_all_count_it() -> None:
    faults = Faults()
    faults.add(Fault("sqs:*", Drop(), nth(1)))
    second = faults.add(Fault("sqs:*", LoseReply()))
    assert [faults.draw(exchange()), faults.draw(exchange())] == [Drop(), LoseReply()]
    assert second.seen == 2
    faults.remove(second)
    faults.remove(second)
    assert faults.draw(exchange()) is None
    faults.add(Fault("sqs:*", Drop()))
    faults.clear()
    assert faults.draw(exchange()) is None


# -- what


@pytest.mark.parametrize(
    "effect,operation,code,status",
    [
        (Fail("SomeError", status=418), "sqs:SendMessage", "SomeError", 418),
        (Throttle(), "sqs:SendMessage", "RequestThrottled", 400),
        (Throttle(), "kinesis:GetRecords", "ProvisionedThroughputExceededException", 400),
        (Throttle(), "dynamodb:PutItem", "ProvisionedThroughputExceededException", 400),
        (Throttle(), "streams:GetRecords", "ThrottlingException", 400),
        (Throttle(), "lambda:Invoke", "TooManyRequestsException", 429),
        (Throttle(), "s3:PutObject", "SlowDown", 503),
        (Throttle(), "sns:Publish", "Throttled", 429),
        (Throttle(), "secretsmanager:GetSecretValue", "ThrottlingException", 400),
        (ServerError(), "sqs:SendMessage", "InternalError", 500),
        (ServerError(), "kinesis:GetRecords", "InternalFailure", 500),
        (ServerError(), "lambda:Invoke", "ServiceException", 500),
        (ServerError(503), "lambda:Invoke", "ServiceUnavailable", 503),
    ],
)
async def test_an_error_is_the_services_own_and_the_call_has_no_effect(
    effect: Effect, operation: str, code: str, status: int
) -> None:
    done: list[bytes] = []
    with pytest.raises(AwsError) as caught:
        await effect.apply(exchange(operation, done=done))
    assert (caught.value.code, caught.value.status) == (code, status)
    assert done == []


async def test_a_throttle_may_ask_to_wait() -> None:
    with pytest.raises(AwsError) as caught:
        await Throttle(1.5).apply(exchange())
    assert caught.value.headers == {"Retry-After": "1.5"}


async def test_garbage_is_answered_without_effect() -> None:
    done: list[bytes] = []
    reply = await Garbage(b"hello", 599).apply(exchange(done=done))
    assert (reply.status, reply.body, done) == (599, b"hello", [])


@pytest.mark.parametrize("effect,effects", [(Drop(), 0), (LoseReply(), 1)])
async def test_a_connection_is_dropped_before_or_after_the_effect(effect: Effect, effects: int) -> None:
    done: list[bytes] = []
    with pytest.raises(ConnectionDropped):
        await effect.apply(exchange(done=done))
    assert len(done) == effects


@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_call_hangs_before_or_after_its_effect(*, after_effect: bool) -> None:
    done: list[bytes] = []
    with anyio.move_on_after(0.02) as waited:
        await Hang(after_effect).apply(exchange(done=done))
    assert waited.cancelled_caught
    assert len(done) == after_effect


async def test_a_delayed_call_is_performed_all_the_same() -> None:
    assert (await Delay(0.001).apply(exchange())).status == 200


# -- entries of batch calls, against the services themselves


async def test_one_entry_in_three_fails_over_all_calls_and_the_others_are_performed() -> None:
    async with Sandbox.open() as sandbox:
        queue = sandbox.sqs.create_queue("orders")
        effect = FailEntries(every(3))
        failed: list[str] = []
        for number in range(4):
            entries = [{"Id": f"{number}{letter}", "MessageBody": f"{number}{letter}"} for letter in "ab"]
            reply = await effect.apply(_call(sandbox, "SendMessageBatch", {"QueueUrl": queue.url, "Entries": entries}))
            answer = Exchange("", reply.body, _never, _refuse).json()
            failed += [entry["Id"] for entry in answer.get("Failed", [])]
        assert failed == ["1a", "2b"]
        assert [message.body for message in queue.messages()] == ["0a", "0b", "1b", "2a", "3a", "3b"]


async def test_a_batch_whose_every_entry_fails_is_not_performed() -> None:
    async with Sandbox.open() as sandbox:
        queue = sandbox.sqs.create_queue("orders")
        entries = [{"Id": "a", "MessageBody": "a"}]
        reply = await FailEntries().apply(
            _call(sandbox, "SendMessageBatch", {"QueueUrl": queue.url, "Entries": entries})
        )
        assert Exchange("", reply.body, _never, _refuse).json() == {
            "Successful": [],
            "Failed": [
                {"Id": "a", "SenderFault": False, "Code": "InternalError", "Message": "This entry fails by script."}
            ],
        }
        assert queue.messages() == []


async def test_failed_records_of_kinesis_keep_their_place_in_the_answer() -> None:
    async with Sandbox.open() as sandbox:
        stream = sandbox.kinesis.create_stream("clicks")
        records = [{"Data": "YQ==", "PartitionKey": str(index)} for index in range(4)]
        reply = await FailEntries(nth(1, 3)).apply(
            _call(sandbox, "PutRecords", {"StreamName": "clicks", "Records": records}, "kinesis")
        )
        answer = Exchange("", reply.body, _never, _refuse).json()
        assert [("ErrorCode" in record) for record in answer["Records"]] == [True, False, True, False]
        assert answer["FailedRecordCount"] == 2
        assert stream.shards()[0].log.tip(0) == 2


def _call(sandbox: Sandbox, operation: str, body: dict[str, object], service: str = "sqs") -> Exchange:
    run = (sandbox.sqs if service == "sqs" else sandbox.kinesis).operations[operation]

    async def perform(body: bytes) -> Reply:
        return Reply(200, await run(body), {})

    return Exchange(f"{service}:{operation}", encoded(body), perform, _refuse)


async def _never(_body: bytes) -> Reply:
    raise AssertionError("not to be performed")


def _refuse(error: AwsError) -> Reply:
    raise error
