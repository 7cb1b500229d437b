"""A worker with one mapping of each source, as the tests of what it costs have it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from esm.sandbox.preset import STREAM_LABEL
from tests.support.worker_process import ROOT, WorkerProcess, esm_run

SOURCES = ("sqs", "kinesis", "dynamodb", "kafka")
_ARN = "arn:aws:{}:eu-west-1:123456789012:{}"
_HANDLER = "async def accept(event, context):\n    return None\n"


def mappings(*sources: str, bootstrap: str = "", batch_size: int = 100) -> Sequence[dict[str, object]]:
    """A mapping of each of ``sources`` to a Python handler that returns at once: orders, clicks, carts, payments."""
    told: dict[str, dict[str, object]] = {
        "sqs": {"name": "orders", "event_source_arn": _ARN.format("sqs", "orders"), "batch_size": 10},
        "kinesis": {"name": "clicks", "event_source_arn": _ARN.format("kinesis", "stream/clicks")},
        "dynamodb": {
            "name": "carts",
            "event_source_arn": _ARN.format("dynamodb", f"table/carts/stream/{STREAM_LABEL}"),
        },
        "kafka": {
            "name": "payments",
            "self_managed_event_source": {"endpoints": {"KAFKA_BOOTSTRAP_SERVERS": bootstrap.split(",")}},
            "topics": ["payments"],
        },
    }
    ordered = {"starting_position": "TRIM_HORIZON", "batch_size": batch_size}
    target = {"target": {"python": {"handler": "cost_handler:accept"}}}
    return [target | told[source] | ({} if source == "sqs" else ordered) for source in sources]


@asynccontextmanager
async def working(folder: Path, url: str, told: Sequence[dict[str, object]]) -> AsyncGenerator[WorkerProcess, None]:
    """``esm run`` with the mappings ``told``, on the sandbox at ``url``."""
    (folder / "cost_handler.py").write_text(_HANDLER)
    config = {"aws": {"region": "eu-west-1", "endpoint_url": url}, "mappings": told}
    async with esm_run(folder, config, PYTHONPATH=f"{ROOT}:{folder}") as worker:
        yield worker
