"""What the admin server is told about the worker."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from esm.engine.status import MappingStatus


class Health(Struct, frozen=True):
    """The worker at one moment."""

    mappings: Sequence[MappingStatus] = ()
    draining: bool = False
    """A stop was asked for: no new work should come this way."""

    @property
    def ready(self) -> bool:
        """Whether every mapping can do its work and none is told to stop."""
        return not self.draining and all(mapping.ready for mapping in self.mappings)


Statuses = Callable[[], Health]
"""Asked at each request, on the loop: it must not block."""
