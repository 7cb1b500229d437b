"""The trace header that goes with each attempt."""


def trace_header(epoch: float, new_id: str) -> str:
    """``X-Amzn-Trace-Id`` of an attempt begun at ``epoch`` (seconds); ``new_id`` is a UUID nobody used before.

    It bears Lambda's shape and is not sampled: a target that traces decides by itself.
    """
    digits = new_id.replace("-", "")
    return f"Root=1-{int(epoch) & 0xFFFFFFFF:08x}-{digits[:24]};Parent={digits[16:32]};Sampled=0"
