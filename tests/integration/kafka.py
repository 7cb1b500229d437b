"""Apache Kafka: one broker that is its own controller, with a listener for each way to log in."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.integration.certificates import Authority, client_context
from tests.integration.processes import NotStarted, Server, accepts, free_ports
from tests.integration.services import JAVA
from tests.integration.waiting import until

USER = "esm"
PLAIN_PASSWORD = "plain-secret"
SCRAM_PASSWORD = "scram-secret"

TOPIC_SECONDS = 10
FORMAT_SECONDS = 30

_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PLAIN_PASSWORD}";'
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

_SETTINGS = f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{{controller}}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{{controller}},{{listeners}}
advertised.listeners={{listeners}}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,MTLS:SSL,SASLTLS:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config={_PLAIN}
listener.name.sasl.scram-sha-512.sasl.jaas.config={_SCRAM}
listener.name.sasl.scram-sha-256.sasl.jaas.config={_SCRAM}
listener.name.sasltls.plain.sasl.jaas.config={_PLAIN}
listener.name.sasltls.scram-sha-512.sasl.jaas.config={_SCRAM}
listener.name.sasltls.scram-sha-256.sasl.jaas.config={_SCRAM}
ssl.keystore.type=PEM
ssl.keystore.location=broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=authority.pem
listener.name.mtls.ssl.client.auth=required
listener.name.sasltls.ssl.client.auth=none
log.dirs=data
auto.create.topics.enable=false

# One broker has one replica.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1

# A test does not wait for a human's time scale: groups join at once, retention is looked at every second.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=0

# 220 MB of memory instead of 355.
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=65536

# A restart waits for the registration of the broker before it to expire: 2.5 s instead of 12.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
controller.quorum.election.timeout.ms=200
controller.quorum.election.backoff.max.ms=200
controller.quorum.fetch.timeout.ms=1000
"""


class Kafka(Server):
    """A broker that keeps topics, offsets and ports over ``stop``, ``kill`` and ``restart``.

    The addresses are bootstrap servers.  ``esm`` logs in by PLAIN with PLAIN_PASSWORD, by SCRAM-SHA-256 and -512 with
    SCRAM_PASSWORD.  Topics are not made by themselves: ``create_topic``.
    """

    def __init__(self, jars: Path, folder: Path) -> None:
        controller, plaintext, sasl, mtls, sasl_tls = free_ports(5)
        self.bootstrap = f"127.0.0.1:{plaintext}"
        """No login."""
        self.sasl = f"127.0.0.1:{sasl}"
        """PLAIN, SCRAM-SHA-512 and SCRAM-SHA-256 without TLS."""
        self.mtls = f"127.0.0.1:{mtls}"
        """TLS with a client's certificate."""
        self.sasl_tls = f"127.0.0.1:{sasl_tls}"
        """PLAIN, SCRAM-SHA-512 and SCRAM-SHA-256 within TLS."""
        self.authority = Authority()
        self.client = self.authority.client()
        """A client that the broker trusts."""
        listeners = {"PLAINTEXT": self.bootstrap, "SASL": self.sasl, "MTLS": self.mtls, "SASLTLS": self.sasl_tls}
        named = ",".join(f"{name}://{address}" for name, address in listeners.items())
        self._jars = jars
        self._settings = _SETTINGS.format(controller=controller, listeners=named)
        command = [*JAVA, "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*"]
        # The port opens after the broker has registered.
        super().__init__("Kafka", [*command, "kafka.Kafka", "server.properties"], folder, lambda: accepts(plaintext))

    @property
    def authority_file(self) -> Path:
        """PEM of the authority that signed the broker's certificate."""
        return self.folder / "authority.pem"

    def start(self) -> None:
        """As ``Server.start``; the first time it formats the data folder."""
        if not (self.folder / "data").exists():
            self._format()
        super().start()

    def tls(self, *, certificate: bool = False) -> ssl.SSLContext:
        """What a client needs for the TLS listeners; with the client's ``certificate`` for ``mtls``."""
        return client_context(self.authority.certificate, self.client if certificate else None, self.folder)

    async def create_topic(self, name: str, partitions: int = 1, **settings: str | int) -> None:
        """Create a topic and wait until each partition has its leader; ``settings`` with ``_`` for ``.``.

        Raises TimeoutError after 10 s.
        """
        configs = {key.replace("_", "."): str(value) for key, value in settings.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
            _check(name, answer.to_object())

            async def led() -> bool:
                return _led(await admin.describe_topics([name]), partitions)

            await until(led, TOPIC_SECONDS)
        finally:
            await admin.close()

    def _format(self) -> None:
        server = self.authority.server()
        self.authority_file.write_text(self.authority.certificate, encoding="ascii")
        keystore = server.key + server.certificate + self.authority.certificate
        (self.folder / "broker.pem").write_text(keystore, encoding="ascii")
        (self.folder / "server.properties").write_text(self._settings, encoding="ascii")
        command = [*JAVA, "-Xmx256m", "-cp", f"{self._jars}/*", "kafka.tools.StorageTool", "format", "-t", _CLUSTER]
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f"{mechanism}=[name={USER},password={SCRAM_PASSWORD}]"]
        ran = subprocess.run(
            [*command, "-c", "server.properties"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=FORMAT_SECONDS,
        )
        if ran.returncode:
            raise NotStarted(f"Kafka's StorageTool ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")


def _check(name: str, answer: dict[str, Any]) -> None:
    for error in answer["topic_errors"]:
        assert error["error_code"] == 0, f"creating the topic {name}: {error}"


def _led(topics: list[dict[str, Any]], partitions: int) -> bool:
    found = topics[0]["partitions"] if topics else []
    return len(found) == partitions and all(each["error_code"] == 0 and each["leader"] >= 0 for each in found)
