import abc
from collections.abc import Coroutine
from collections.abc import Set as AbstractSet

from aiokafka.structs import TopicPartition

class ConsumerRebalanceListener(abc.ABC):
    # A coroutine is awaited in the coordinator's task; whatever else is returned is dropped.
    @abc.abstractmethod
    def on_partitions_revoked(self, revoked: AbstractSet[TopicPartition]) -> Coroutine[object, object, None] | None: ...
    @abc.abstractmethod
    def on_partitions_assigned(
        self, assigned: AbstractSet[TopicPartition]
    ) -> Coroutine[object, object, None] | None: ...

class AbstractTokenProvider(abc.ABC):
    @abc.abstractmethod
    async def token(self) -> str: ...
    def extensions(self) -> dict[str, str]: ...
