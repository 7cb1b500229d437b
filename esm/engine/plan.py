"""What assembly decided about one mapping: everything the engine needs to run it."""

from msgspec import Struct

from esm.domain.delivery import NewDelivery
from esm.domain.events import EventKind
from esm.domain.filtering import Filters
from esm.ports import Destination, Source, Target


class Plan(Struct, frozen=True):
    """One mapping, ready to run; it joins one source to one target."""

    name: str
    uuid: str
    source_kind: str
    """``sqs``, ``kinesis``, ``dynamodb`` or ``kafka``: a label of metrics."""
    source_name: str
    """What it reads, as people call it: ``orders``."""
    source: Source
    kind: EventKind
    target: Target
    new_delivery: NewDelivery
    """Makes the machine of a batch."""
    ordered: bool
    """False for a queue: any record may go with any other, and what failed is left to its visibility."""
    batch_size: int
    window: float
    """Seconds; 0 sends what a read brought at once."""
    batches: int
    """Queues: batches at once; ordered lanes: sub-lanes of each lane (`parallelization_factor`)."""
    destination: Destination | None = None
    drops: bool = False
    """`on_destination_failure: drop`: a failure record that its destination does not take at once is lost."""
    filters: Filters | None = None
    """Which records are delivered; None = all."""
    waits_for: str | None = None
    """Why the mapping may not read at all now (a target whose reserved_concurrency is 0); None = it may."""
