"""Which services of this test run are up: each when it is first asked for, one Java server at a time."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from tests.integration import artefacts
from tests.integration.guard import GUARD
from tests.integration.kafka import Kafka
from tests.integration.processes import Server
from tests.integration.services import DynamoDbLocal, ElasticMq, Kinesalite
from tests.integration.tools import lack, leave, require


class Kind(Struct, frozen=True):
    """A kind of service: what it needs of the machine, how its program is fetched, what runs it."""

    tools: tuple[str, ...]
    fetch: Callable[[str], Path]
    server: Callable[[Path, Path], Server]
    java: bool = False


JAVA_TOOLS = ("java", "mvn")
KINDS = {
    "kafka": Kind(JAVA_TOOLS, artefacts.java, Kafka, java=True),
    "dynamodb_local": Kind(JAVA_TOOLS, artefacts.java, DynamoDbLocal, java=True),
    "elasticmq": Kind(JAVA_TOOLS, artefacts.java, ElasticMq, java=True),
    "kinesalite": Kind(("node", "npm"), artefacts.node, Kinesalite),
}
"""By the names of their fixtures."""


class Services:
    """The servers of this run, which keep their data from test to test until another Java server has its turn.

    ``say`` tells a person what takes long.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._root = Path(tempfile.mkdtemp(prefix="esm-services-"))
        GUARD.remove(self._root)
        self._programs: dict[str, Path | artefacts.Unavailable] = {}
        self._servers: dict[str, Server] = {}
        self._turn = contextlib.ExitStack()
        self._has_turn = False

    def prepare(self, names: Iterable[str]) -> None:
        """Whatever may take minutes: fetch the programs of ``names``, wait until no other run has a Java server."""
        for name in names:
            if name not in self._programs and not lack(*KINDS[name].tools):
                try:
                    self._programs[name] = KINDS[name].fetch(name)
                except artefacts.Unavailable as unavailable:
                    self._programs[name] = unavailable
                if KINDS[name].java:
                    self._take_turn()

    def use(self, name: str) -> Server:
        """The service ``name``, ready; stops another Java server for it.

        Leaves the test if this machine lacks what it needs.  Raises NotStarted with the log.
        """
        require(*KINDS[name].tools)
        self.prepare([name])
        program = self._programs[name]
        if isinstance(program, artefacts.Unavailable):
            leave(str(program))
        if KINDS[name].java:
            self._stop_java(but=name)
        if name not in self._servers:
            folder = self._root / name
            folder.mkdir()
            self._servers[name] = KINDS[name].server(program, folder)
        self._servers[name].start()
        return self._servers[name]

    def close(self) -> None:
        """Stop whatever runs and let another run have its turn."""
        try:
            for server in self._servers.values():
                server.stop()
        finally:
            GUARD.close()
            self._turn.close()

    def _stop_java(self, but: str) -> None:
        for name, server in self._servers.items():
            if KINDS[name].java and name != but:
                server.stop()

    def _take_turn(self) -> None:
        if not self._has_turn:
            waits = "another test run has a Java server; waiting for its end, because one at a time is the rule"
            lock = artefacts.locked(artefacts.cache() / "java-server.lock", on_wait=lambda: self._say(waits))
            self._turn.enter_context(lock)
            self._has_turn = True
