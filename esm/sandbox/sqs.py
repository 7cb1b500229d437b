"""SQS by its JSON protocol: queues, messages, batches, long polls, dead letters."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from esm.sandbox.messages import Attribute, Message, fit_for_sqs, md5, md5_of_attributes
from esm.sandbox.queues import FifoQueue, Queue, Settings
from esm.sandbox.wire import Answer, AwsError, Perform, operation
from esm.sandbox.world import World

MAX_BATCH = 10
MAX_BATCH_BYTES = 1_048_576
SENDER = "AIDASANDBOX0000000001"


class Request(msgspec.Struct, rename="pascal"):
    """A call that names a queue."""

    queue_url: str


class CreateQueue(msgspec.Struct, rename="pascal"):
    """CreateQueue."""

    queue_name: str
    attributes: Mapping[str, str] = {}


class QueueName(msgspec.Struct, rename="pascal"):
    """GetQueueUrl."""

    queue_name: str


class ListQueues(msgspec.Struct, rename="pascal"):
    """ListQueues."""

    queue_name_prefix: str = ""


class GetAttributes(Request):
    """GetQueueAttributes."""

    attribute_names: Sequence[str] = ()


class SetAttributes(Request):
    """SetQueueAttributes."""

    attributes: Mapping[str, str] = {}


class Entry(msgspec.Struct, rename="pascal", kw_only=True):
    """What a message is made of, alone or in a batch."""

    id: str = ""
    message_body: str
    delay_seconds: int | None = None
    message_attributes: Mapping[str, Attribute] = {}
    message_system_attributes: Mapping[str, Attribute] = {}
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendOne(Entry, kw_only=True):
    """SendMessage."""

    queue_url: str


class SendBatch(Request):
    """SendMessageBatch."""

    entries: Sequence[Entry] = ()


class Receive(Request):
    """ReceiveMessage."""

    attribute_names: Sequence[str] = ()
    message_system_attribute_names: Sequence[str] = ()
    message_attribute_names: Sequence[str] = ()
    max_number_of_messages: int = 1
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None


class Delete(Request):
    """DeleteMessage."""

    receipt_handle: str


class ChangeVisibility(Delete):
    """ChangeMessageVisibility."""

    visibility_timeout: int


class BatchEntry(msgspec.Struct, rename="pascal"):
    """An entry of DeleteMessageBatch and ChangeMessageVisibilityBatch."""

    id: str
    receipt_handle: str
    visibility_timeout: int = 0


class Batch(Request):
    """DeleteMessageBatch, ChangeMessageVisibilityBatch."""

    entries: Sequence[BatchEntry] = ()


E = TypeVar("E", Entry, BatchEntry)


class Sqs:
    """All queues of the sandbox."""

    name = "sqs"

    def __init__(self, world: World) -> None:
        self._world = world
        self._queues: dict[str, Queue] = {}
        self.operations: Mapping[str, Perform] = _operations(self)

    # -- direct use

    def create_queue(
        self, name: str, *, redrive_to: Queue | None = None, max_receives: int = 5, **set_: object
    ) -> Queue:
        """Make a queue, FIFO if ``name`` ends in ``.fifo``; keywords are AWS's attributes (``VisibilityTimeout=5``).

        With ``redrive_to`` messages leave for that queue after ``max_receives`` receives.  Raises AwsError for
        attributes that AWS would refuse, and for a second queue of this name with other attributes.
        """
        attributes = {key: _text(value) for key, value in set_.items()}
        if redrive_to is not None:
            policy = {"deadLetterTargetArn": redrive_to.arn, "maxReceiveCount": max_receives}
            attributes["RedrivePolicy"] = json.dumps(policy)
        if name.endswith(".fifo"):
            attributes.setdefault("FifoQueue", "true")
        return self._create(name, attributes)

    def queue(self, name: str) -> Queue:
        """The queue of this name, URL or ARN.  Raises AwsError (QueueDoesNotExist)."""
        found = self._queues.get(re.split("[/:]", name)[-1])
        if found is None:
            raise AwsError(
                "QueueDoesNotExist",
                "The specified queue does not exist.",
                query_code="AWS.SimpleQueueService.NonExistentQueue",
            )
        return found

    def send(self, name: str, body: str, *, group: str | None = None, deduplication_id: str | None = None) -> str:
        """Send one message without HTTP; answers its id."""
        entry = Entry(message_body=body, message_group_id=group, message_deduplication_id=deduplication_id)
        return str(self._send(self.queue(name), entry)["MessageId"])

    def delete_queue(self, name: str) -> None:
        """Remove a queue; its messages are gone."""
        del self._queues[self.queue(name).name]

    # -- queues

    def _create(self, name: str, attributes: Mapping[str, str]) -> Queue:
        settings = _changed(Settings(), attributes)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo", name):
            raise _invalid("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
        if settings.FifoQueue != name.endswith(".fifo"):
            raise _invalid(
                "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
                "must end with .fifo suffix and be 1 to 80 in length."
            )
        self._check_redrive(settings)
        known = self._queues.get(name)
        if known is None:
            make = FifoQueue if settings.FifoQueue else Queue
            known = self._queues[name] = make(name, settings, self._world, self._by_arn)
        elif known.settings != _changed(known.settings, attributes):
            raise AwsError(
                "QueueNameExists",
                "A queue already exists with the same name and a different value for an attribute.",
                query_code="QueueAlreadyExists",
            )
        return known

    def _by_arn(self, arn: str) -> Queue | None:
        return self._queues.get(arn.rpartition(":")[2])

    def _check_redrive(self, settings: Settings) -> None:
        if not settings.RedrivePolicy:
            return
        reason = ""
        try:
            policy = json.loads(settings.RedrivePolicy)
            if self._by_arn(str(policy["deadLetterTargetArn"])) is None:
                reason = "Dead letter target does not exist."
            elif not 1 <= int(policy["maxReceiveCount"]) <= 1000:
                reason = "Invalid value for maxReceiveCount."
        except (ValueError, KeyError, TypeError):
            reason = "Redrive policy is not a valid JSON map."
        if reason:
            raise _invalid(f"Value {settings.RedrivePolicy} for parameter RedrivePolicy is invalid. Reason: {reason}")

    def on_create(self, request: CreateQueue) -> Answer:
        return {"QueueUrl": self._create(request.queue_name, request.attributes).url}

    def on_url(self, request: QueueName) -> Answer:
        return {"QueueUrl": self.queue(request.queue_name).url}

    def on_list(self, request: ListQueues) -> Answer:
        return {"QueueUrls": [q.url for n, q in self._queues.items() if n.startswith(request.queue_name_prefix)]}

    def on_delete_queue(self, request: Request) -> Answer:
        self.delete_queue(request.queue_url)
        return {}

    def on_purge(self, request: Request) -> Answer:
        self.queue(request.queue_url).purge()
        return {}

    def on_attributes(self, request: GetAttributes) -> Answer:
        queue = self.queue(request.queue_url)
        queue.refresh()
        shown = {key: _text(value) for key, value in msgspec.structs.asdict(queue.settings).items() if value != ""}
        if not queue.settings.FifoQueue:
            for key in ("FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"):
                del shown[key]
        shown |= {
            "QueueArn": queue.arn,
            "ApproximateNumberOfMessages": str(queue.visible_count),
            "ApproximateNumberOfMessagesNotVisible": str(queue.in_flight_count),
            "ApproximateNumberOfMessagesDelayed": str(queue.delayed_count),
            "CreatedTimestamp": str(int(queue.created_at)),
            "LastModifiedTimestamp": str(int(queue.modified_at)),
        }
        for name in request.attribute_names:
            if name != "All" and name not in shown and name not in Settings.__struct_fields__:
                raise AwsError("InvalidAttributeName", f"Unknown Attribute {name}.", query_code="InvalidAttributeName")
        if "All" not in request.attribute_names:
            shown = {name: shown[name] for name in request.attribute_names if name in shown}
        return {"Attributes": shown} if shown else {}

    def on_set_attributes(self, request: SetAttributes) -> Answer:
        queue = self.queue(request.queue_url)
        settings = _changed(queue.settings, request.attributes)
        self._check_redrive(settings)
        queue.configure(settings)
        return {}

    # -- messages

    def on_send(self, request: SendOne) -> Answer:
        return self._send(self.queue(request.queue_url), request)

    def on_send_batch(self, request: SendBatch) -> Answer:
        queue = self.queue(request.queue_url)
        _check_batch([entry.id for entry in request.entries])
        total = sum(len(entry.message_body.encode()) for entry in request.entries)
        if total > MAX_BATCH_BYTES:
            raise _batch_error(
                "BatchRequestTooLong",
                f"Batch requests cannot be longer than {MAX_BATCH_BYTES} bytes. You have sent {total} bytes.",
            )
        return _each(request.entries, lambda entry: self._send(queue, entry))

    def _send(self, queue: Queue, entry: Entry) -> dict[str, object]:
        message = self._message(queue, entry)
        answer: dict[str, object] = {"MessageId": message.id, "MD5OfMessageBody": md5(message.body)}
        if entry.message_attributes:
            answer["MD5OfMessageAttributes"] = md5_of_attributes(entry.message_attributes)
        if entry.message_system_attributes:
            answer["MD5OfMessageSystemAttributes"] = md5_of_attributes(entry.message_system_attributes)
        if isinstance(queue, FifoQueue) and (known := queue.duplicate_of(message)):
            answer["MessageId"], answer["SequenceNumber"] = known
            return answer
        queue.add(message, entry.delay_seconds)
        if message.sequence is not None:
            answer["SequenceNumber"] = message.sequence
        return answer

    def _message(self, queue: Queue, entry: Entry) -> Message:
        fifo = queue.settings.FifoQueue
        if not entry.message_body:
            raise _missing("The request must contain the parameter MessageBody.")
        if not fit_for_sqs(entry.message_body):
            raise AwsError(
                "InvalidMessageContents",
                "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
                "#xE000 to #xFFFD | #x10000 to #x10FFFF",
                query_code="InvalidMessageContents",
            )
        if fifo and not entry.message_group_id:
            raise _missing("The request must contain the parameter MessageGroupId.")
        if fifo and entry.delay_seconds is not None:
            raise _invalid(
                f"Value {entry.delay_seconds} for parameter DelaySeconds is invalid. Reason: The request "
                "include parameter that is not valid for this queue type."
            )
        if not 0 <= (entry.delay_seconds or 0) <= 900:
            raise _invalid(
                f"Value {entry.delay_seconds} for parameter DelaySeconds is invalid. Reason: DelaySeconds "
                "must be >= 0 and <= 900."
            )
        deduplication_id = entry.message_deduplication_id
        if fifo and not deduplication_id:
            if not queue.settings.ContentBasedDeduplication:
                raise _invalid(
                    "The queue should either have ContentBasedDeduplication enabled or "
                    "MessageDeduplicationId provided explicitly"
                )
            deduplication_id = hashlib.sha256(entry.message_body.encode()).hexdigest()
        trace = entry.message_system_attributes.get("AWSTraceHeader")
        message = Message(
            id=self._world.uuid(),
            body=entry.message_body,
            attributes={name: one.normalised() for name, one in entry.message_attributes.items()} or None,
            trace_header=None if trace is None else trace.string_value,
            group=entry.message_group_id,
            deduplication_id=deduplication_id,
        )
        if message.size() > queue.settings.MaximumMessageSize:
            raise _invalid(
                "One or more parameters are invalid. Reason: Message must be shorter than "
                f"{queue.settings.MaximumMessageSize} bytes."
            )
        return message

    async def on_receive(self, request: Receive) -> Answer:
        queue = self.queue(request.queue_url)
        settings = queue.settings
        limit = request.max_number_of_messages
        wait = (
            settings.ReceiveMessageWaitTimeSeconds if request.wait_time_seconds is None else request.wait_time_seconds
        )
        visibility = settings.VisibilityTimeout if request.visibility_timeout is None else request.visibility_timeout
        _check_range("MaxNumberOfMessages", limit, 1, MAX_BATCH)
        _check_range("WaitTimeSeconds", wait, 0, 20)
        _check_range("VisibilityTimeout", visibility, 0, 43_200)
        if not wait and not settings.FifoQueue and queue.in_flight_count >= queue.in_flight_limit:
            raise AwsError("OverLimit", "Too many messages in flight.", 403, query_code="OverLimit")
        messages = queue.receive(limit, visibility)
        if not messages and wait:
            messages = await self._long_poll(queue, limit, visibility, wait)
        shown = [_shown(message, request) for message in messages]
        return {"Messages": shown} if shown else {}

    async def _long_poll(self, queue: Queue, limit: int, visibility: int, seconds: int) -> list[Message]:
        clock = self._world.clock
        until = clock.now() + seconds
        messages: list[Message] = []
        while not messages and clock.now() < until:
            waiter = queue.waiter()
            try:
                await clock.wait(waiter, min(until, queue.next_due()))
            finally:
                queue.forsake(waiter)
            messages = queue.receive(limit, visibility)
        return messages

    def on_delete(self, request: Delete) -> Answer:
        self.queue(request.queue_url).delete(request.receipt_handle)
        return {}

    def on_delete_batch(self, request: Batch) -> Answer:
        queue = self.queue(request.queue_url)
        _check_batch([entry.id for entry in request.entries])
        return _each(request.entries, lambda entry: queue.delete(entry.receipt_handle))

    def on_change(self, request: ChangeVisibility) -> Answer:
        queue = self.queue(request.queue_url)
        _check_range("VisibilityTimeout", request.visibility_timeout, 0, 43_200)
        queue.change_visibility(request.receipt_handle, request.visibility_timeout)
        return {}

    def on_change_batch(self, request: Batch) -> Answer:
        queue = self.queue(request.queue_url)
        _check_batch([entry.id for entry in request.entries])

        def change(entry: BatchEntry) -> None:
            _check_range("VisibilityTimeout", entry.visibility_timeout, 0, 43_200)
            queue.change_visibility(entry.receipt_handle, entry.visibility_timeout)

        return _each(request.entries, change)


def _operations(sqs: Sqs) -> Mapping[str, Perform]:
    return {
        "CreateQueue": operation(CreateQueue, sqs.on_create),
        "GetQueueUrl": operation(QueueName, sqs.on_url),
        "ListQueues": operation(ListQueues, sqs.on_list),
        "DeleteQueue": operation(Request, sqs.on_delete_queue),
        "PurgeQueue": operation(Request, sqs.on_purge),
        "GetQueueAttributes": operation(GetAttributes, sqs.on_attributes),
        "SetQueueAttributes": operation(SetAttributes, sqs.on_set_attributes),
        "SendMessage": operation(SendOne, sqs.on_send),
        "SendMessageBatch": operation(SendBatch, sqs.on_send_batch),
        "ReceiveMessage": operation(Receive, sqs.on_receive),
        "DeleteMessage": operation(Delete, sqs.on_delete),
        "DeleteMessageBatch": operation(Batch, sqs.on_delete_batch),
        "ChangeMessageVisibility": operation(ChangeVisibility, sqs.on_change),
        "ChangeMessageVisibilityBatch": operation(Batch, sqs.on_change_batch),
    }


def _shown(message: Message, request: Receive) -> dict[str, object]:
    shown: dict[str, object] = {
        "MessageId": message.id,
        "ReceiptHandle": message.handle,
        "MD5OfBody": md5(message.body),
        "Body": message.body,
    }
    names = {*request.message_system_attribute_names, *request.attribute_names}
    if names:
        known = _system_attributes(message)
        shown["Attributes"] = known if "All" in names else {name: known[name] for name in known if name in names}
    if message.attributes and request.message_attribute_names:
        chosen = _chosen(message.attributes, request.message_attribute_names)
        if chosen:
            shown["MessageAttributes"] = chosen
            shown["MD5OfMessageAttributes"] = md5_of_attributes(chosen)
    return shown


def _system_attributes(message: Message) -> dict[str, str]:
    attributes = {
        "SenderId": SENDER,
        "ApproximateFirstReceiveTimestamp": str(int(message.first_received_at * 1000)),
        "ApproximateReceiveCount": str(message.receives),
        "SentTimestamp": str(int(message.sent_at * 1000)),
    }
    optional = {
        "AWSTraceHeader": message.trace_header,
        "MessageGroupId": message.group,
        "MessageDeduplicationId": message.deduplication_id,
        "SequenceNumber": message.sequence,
        "DeadLetterQueueSourceArn": message.dead_letter_source,
    }
    return attributes | {name: value for name, value in optional.items() if value is not None}


def _chosen(attributes: Mapping[str, Attribute], names: Iterable[str]) -> dict[str, Attribute]:
    wanted = set(names)
    if wanted & {"All", ".*"}:
        return dict(attributes)
    prefixes = tuple(name[:-2] for name in wanted if name.endswith(".*"))
    return {name: one for name, one in attributes.items() if name in wanted or (prefixes and name.startswith(prefixes))}


def _each(entries: Sequence[E], act: Callable[[E], dict[str, object] | None]) -> Answer:
    """Perform a batch entry by entry; errors of one go to ``Failed``."""
    successful: list[object] = []
    failed: list[object] = []
    for entry in entries:
        try:
            successful.append({"Id": entry.id, **(act(entry) or {})})
        except AwsError as error:
            code = error.query_code or error.code
            failed.append({"Id": entry.id, "SenderFault": error.sender, "Code": code, "Message": error.message})
    answer: dict[str, object] = {"Successful": successful}
    if failed:
        answer["Failed"] = failed
    return answer


def _changed(settings: Settings, attributes: Mapping[str, str]) -> Settings:
    values = msgspec.structs.asdict(settings)
    for name, text in attributes.items():
        if name not in values:
            raise AwsError("InvalidAttributeName", f"Unknown Attribute {name}.", query_code="InvalidAttributeName")
        values[name] = text
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise AwsError(
            "InvalidAttributeValue", f"Invalid value for an attribute: {error}", query_code="InvalidAttributeValue"
        ) from error


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise _invalid(
            f"Value {value} for parameter {name} is invalid. Reason: Must be >= {low} and <= {high}, if provided."
        )


def _check_batch(ids: Sequence[str]) -> None:
    if not ids:
        raise _batch_error("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(ids) > MAX_BATCH:
        raise _batch_error(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MAX_BATCH}. You have sent {len(ids)}.",
        )
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise _batch_error("BatchEntryIdsNotDistinct", f"Id {twice} repeated.")
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", one) for one in ids):
        raise _batch_error(
            "InvalidBatchEntryId",
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 "
            "letters long.",
        )


def _batch_error(code: str, message: str) -> AwsError:
    return AwsError(code, message, query_code=f"AWS.SimpleQueueService.{code}")


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message, query_code="InvalidParameterValue")


def _missing(message: str) -> AwsError:
    return AwsError("MissingParameterException", message, query_code="MissingParameter")
