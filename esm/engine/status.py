"""How a mapping is doing, as people and probes are told."""

from msgspec import Struct


class MappingStatus(Struct, frozen=True):
    """One mapping at one moment."""

    name: str
    source: str
    """Its kind and what it reads: ``sqs orders``."""
    state: str
    """One word: what the mapping does now."""
    ready: bool
    """Source and target are reachable; a mapping that was turned off is ready."""
    why: str | None
    """A sentence: what keeps it from being ready, and what to do; None when it is."""
    lanes: int
    """Lanes that this worker reads now."""
