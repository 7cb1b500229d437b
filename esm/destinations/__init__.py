"""Where discarded records are kept: one file per technology.

An adapter stores what it is given once per call and never retries; the engine offers it again, with the same id.
"""
