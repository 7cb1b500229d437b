"""The second argument of a Python handler: the members that Lambda's own context has."""

import os
import sys
import time
from contextvars import ContextVar

TRACE_ID: ContextVar[str] = ContextVar("esm_trace_id", default="")
"""The ``X-Amzn-Trace-Id`` of the attempt a handler runs in.

Lambda sets the environment variable ``_X_AMZN_TRACE_ID`` for this.  Here several attempts share a process, and a
variable of the process would tell most of them a wrong one; so a handler reads ``context.trace_id`` or this.
"""


class CognitoIdentity:
    """Who called through a mobile SDK: nobody."""

    cognito_identity_id: None = None
    cognito_identity_pool_id: None = None


class LambdaContext:
    """What a handler may ask about its invocation."""

    identity = CognitoIdentity()
    client_context: None = None

    def __init__(self, function_name: str, function_arn: str, request_id: str, deadline: float, trace_id: str) -> None:
        """``deadline`` is ``time.monotonic()`` when the attempt times out."""
        self.function_name = function_name
        self.function_version = "$LATEST"
        self.invoked_function_arn = function_arn
        self.aws_request_id = request_id
        self.memory_limit_in_mb = "128"
        """Text, as in Lambda; nothing enforces it."""
        self.log_group_name = f"/aws/lambda/{function_name}"
        self.log_stream_name = f"[$LATEST]{os.getpid()}"
        self.trace_id = trace_id
        """``X-Amzn-Trace-Id``; Lambda has it in the environment variable ``_X_AMZN_TRACE_ID``."""
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the attempt times out; 0 afterwards."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message: object) -> None:
        """Write ``message`` to the standard output, as Lambda's own does to the function's log."""
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        return f"LambdaContext({self.function_name!r}, aws_request_id={self.aws_request_id!r})"
