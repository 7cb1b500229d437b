"""The services other than Kafka.

DynamoDB Local listens on all interfaces, no option changes that; the others listen on 127.0.0.1 alone.
"""

import http.client
import json
from pathlib import Path

from tests.integration.processes import Server, accepts, free_ports

JAVA = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Half the CPU of a start, and little memory."""


class DynamoDbLocal(Server):
    """Tables and their streams, in memory: stopped or killed, it forgets them.

    A stream has one shard that never rolls; its ARNs say region ``ddblocal``.  Its records tell the minute of their
    creation alone: a mapping that starts at LATEST skips what is written later in that minute.  An access key id must
    be letters and digits.  Table names need three characters.
    """

    def __init__(self, jars: Path, folder: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        main = "software.amazon.dynamodb.services.local.main.ServerRunner"
        options = ["-port", str(port), "-inMemory", "-sharedDb", "-disableTelemetry"]  # without it would call home
        command = [*JAVA, "-Xmx256m", "-cp", f"{jars}/*", main, *options]
        super().__init__("DynamoDB Local", command, folder, lambda: answers(port, "/", 400))


class ElasticMq(Server):
    """SQS, in memory: stopped or killed, it forgets its queues.

    Differs from SQS: a second delete, or one by an older handle, is an error ``ReceiptHandleIsInvalid``.
    """

    def __init__(self, jars: Path, folder: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        settings = {
            "node-address.host": "127.0.0.1",
            "node-address.port": port,
            "rest-sqs.bind-hostname": "127.0.0.1",
            "rest-sqs.bind-port": port,
            "rest-sqs.sqs-limits": "strict",
            "rest-stats.enabled": "false",
        }
        flags = [f"-D{name}={value}" for name, value in settings.items()]
        command = [*JAVA, "-Xmx192m", *flags, "-cp", f"{jars}/*", "org.elasticmq.server.Main"]
        super().__init__("ElasticMQ", command, folder, lambda: answers(port, "/health", 200))


class Kinesalite(Server):
    """Kinesis, in memory: stopped or killed, it forgets its streams.

    GetRecords names no child shards, nothing is throttled, ListShards takes no ARN, there are no consumers.
    """

    def __init__(self, modules: Path, folder: Path) -> None:
        [port] = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        package = json.dumps(str(modules / "node_modules" / "kinesalite"))
        options = json.dumps({"createStreamMs": 10, "deleteStreamMs": 10, "updateStreamMs": 10, "shardLimit": 1000})
        script = f"require({package})({options}).listen({port}, '127.0.0.1')"  # its own command has no address to give
        super().__init__("kinesalite", ["node", "-e", script], folder, lambda: accepts(port))


def answers(port: int, path: str, status: int) -> bool:
    """Whether GET ``path`` answers ``status``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
