"""A moment, as the rules are given it."""

from msgspec import Struct


class Instant(Struct, frozen=True, gc=False):
    """One reading of the clock."""

    elapsed: float
    """Seconds that never step and count suspension; due times and deadlines live here."""
    epoch: float
    """Seconds since 1970, anchored to ``elapsed``; ages of records live here."""
    ages_paused: bool = False
    """True for a minute after the wall clock stepped: no record may be discarded for its age now."""
