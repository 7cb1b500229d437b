"""SNS by its query protocol: Publish to topics; and the one call of STS that clients use to see who they are."""

import json
from collections.abc import Mapping
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import msgspec

from esm.sandbox.sqs import Sqs
from esm.sandbox.wire import AwsError, Exchange, Reply
from esm.sandbox.world import World

MAX_MESSAGE = 262_144
_XML = {"Content-Type": "text/xml"}


class Published(msgspec.Struct, frozen=True):
    """A message that was published; ``attributes`` are (type, value) by name."""

    id: str
    topic: str
    message: str
    subject: str | None
    attributes: Mapping[str, tuple[str, str]]
    group: str | None


class Topic:
    """A topic: what was published to it, and the queues that get it."""

    def __init__(self, name: str, arn: str) -> None:
        self.name = name
        self.arn = arn
        self.published: list[Published] = []
        self.queues: dict[str, bool] = {}
        """Subscribed queues by name; True where the message goes raw, without SNS's envelope."""


class Sns:
    """All topics of the sandbox."""

    name = "sns"

    def __init__(self, world: World, sqs: Sqs) -> None:
        self._world = world
        self._sqs = sqs
        self._topics: dict[str, Topic] = {}

    def create_topic(self, name: str) -> Topic:
        """Make a topic, or answer the one that exists."""
        arn = f"arn:aws:sns:{self._world.region}:{self._world.account}:{name}"
        return self._topics.setdefault(arn, Topic(name, arn))

    def topic(self, arn: str) -> Topic:
        """The topic of this ARN.  Raises AwsError (NotFound)."""
        found = self._topics.get(arn)
        if found is None:
            raise AwsError("NotFound", "Topic does not exist", 404)
        return found

    def exchange(self, body: bytes) -> Exchange:
        """The call of a form body."""
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        action = form.get("Action", "")
        service = "sts" if action == "GetCallerIdentity" else "sns"

        async def perform(_body: bytes) -> Reply:
            return Reply(200, self._answer(action, form).encode(), _XML)

        return Exchange(f"{service}:{action}", body, perform, _refuse, form.get("TopicArn", ""))

    def _answer(self, action: str, form: Mapping[str, str]) -> str:
        match action:
            case "Publish":
                return _result(action, f"<MessageId>{self._publish(form)}</MessageId>")
            case "CreateTopic":
                return _result(action, f"<TopicArn>{self.create_topic(form['Name']).arn}</TopicArn>")
            case "GetCallerIdentity":
                account = self._world.account
                arn = f"arn:aws:iam::{account}:user/sandbox"
                return _result(action, f"<Arn>{arn}</Arn><UserId>AIDASANDBOX</UserId><Account>{account}</Account>")
            case _:
                raise AwsError("InvalidAction", f"The sandbox does not know the action {action}.")

    def _publish(self, form: Mapping[str, str]) -> str:
        topic = self.topic(form.get("TopicArn") or form.get("TargetArn", ""))
        message = form.get("Message", "")
        if not message:
            raise AwsError("InvalidParameter", "Invalid parameter: Empty message")
        if len(message.encode()) > MAX_MESSAGE:
            raise AwsError("InvalidParameter", "Invalid parameter: Message too long")
        fifo = topic.name.endswith(".fifo")
        if fifo and not form.get("MessageGroupId"):
            message = "Invalid parameter: The MessageGroupId parameter is required for FIFO topics"
            raise AwsError("InvalidParameter", message)
        published = Published(
            id=self._world.uuid(),
            topic=topic.arn,
            message=message,
            subject=form.get("Subject"),
            attributes=_attributes(form),
            group=form.get("MessageGroupId"),
        )
        topic.published.append(published)
        for queue, raw in topic.queues.items():
            envelope = {"Type": "Notification", "MessageId": published.id, "TopicArn": topic.arn, "Message": message}
            self._sqs.send(queue, message if raw else json.dumps(envelope), group=published.group)
        return published.id


def _attributes(form: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    index = 1
    while (name := form.get(f"MessageAttributes.entry.{index}.Name")) is not None:
        value = f"MessageAttributes.entry.{index}.Value"
        text = form.get(f"{value}.StringValue", form.get(f"{value}.BinaryValue", ""))
        found[name] = (form.get(f"{value}.DataType", ""), text)
        index += 1
    return found


def _result(action: str, inner: str) -> str:
    return f"<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>"


def _refuse(error: AwsError) -> Reply:
    kind = "Sender" if error.sender else "Receiver"
    body = (
        f"<ErrorResponse><Error><Type>{kind}</Type><Code>{error.code}</Code>"
        f"<Message>{escape(error.message)}</Message></Error></ErrorResponse>"
    )
    return Reply(error.status, body.encode(), _XML | dict(error.headers))
