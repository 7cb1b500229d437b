"""The errors of `esm`.  The docstring of a class is the sentence that an operator reads first."""


class EsmError(Exception):
    """Base of everything that `esm` raises on purpose; its text is a whole sentence for an operator."""


class NotReady(EsmError):
    """The world is not as the mapping needs it (no such queue, wrong password, broker away); the mapping keeps trying.

    The text says what was found, where, and what to do.
    """


class LaneLost(EsmError):
    """The lane belongs to another worker now: nothing more is written for it, results still in flight are ignored."""


class LaneFailed(EsmError):
    """Reading a lane failed beyond what the lane itself retries; it is closed and opened again after a back-off."""


class DestinationUnavailable(EsmError):
    """The failure destination did not take the record now (down, throttled, denied); it is offered again later."""


class DestinationRejected(EsmError):
    """The failure destination will never take this record (too large, malformed); offering it again cannot help."""


class LeaseStoreFailed(EsmError):
    """The lease store cannot be trusted now (disk full, file deleted, network away); no checkpoint is written."""


class MalformedReport(EsmError):
    """A target answered something that is no valid partial-failure report; the whole batch has failed."""
