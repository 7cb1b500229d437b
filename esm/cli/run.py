"""``esm run``: the worker in the foreground, until a signal ends it."""

import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from esm.cli.output import FAILED, WRONG_USE, complain
from esm.cli.validate import ConfigPath
from esm.config.load import Loaded, load
from esm.config.mistakes import ConfigError
from esm.telemetry.logs import Level, configure

if TYPE_CHECKING:
    from esm.engine.worker import Worker

log = structlog.get_logger()

START_SECONDS = 5.0
"""After which a worker counts as started, whether its mappings are ready or not."""
SAY_AGAIN_SECONDS = 5.0
"""How often a terminal is told what a stop waits for."""

LogLevel = Annotated[Level, typer.Option("--log-level", envvar="ESM_LOG_LEVEL", help="The least that is logged.")]


def run(config: ConfigPath, log_level: LogLevel = "info") -> None:
    """Run the mappings of a configuration until SIGTERM or SIGINT.

    Then what runs may end; a second signal stops at once.  Exit code 0 after a stop, 1 when the worker could not start
    or had to be stopped by force, 2 for a wrong configuration.
    """
    configure(log_level, console=sys.stderr.isatty())
    loaded = _loaded(config)
    raise typer.Exit(_served(loaded))


def _loaded(path: Path) -> Loaded:
    try:
        return load(path, os.environ)
    except ConfigError as error:
        for mistake in error.mistakes:
            complain(str(mistake))
        number = len(error.mistakes)
        complain(f"{number} mistake{'' if number == 1 else 's'}; nothing was started")
        raise typer.Exit(WRONG_USE) from None


def _served(loaded: Loaded) -> int:
    import anyio

    options = {"use_uvloop": find_spec("uvloop") is not None}
    code = anyio.run(_serve, loaded, backend_options=options)
    if code:  # a handler that never returns must not keep the process: whatever could be given back was
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve(loaded: Loaded) -> int:
    """Run until stopped; answers the exit code."""
    import anyio

    from esm.clients.trust import trusting_later

    with trusting_later():
        from esm.admin.server import serve
        from esm.assembly import assembled
    from esm.domain.errors import EsmError

    config, clean = loaded.config, False
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            async with (
                assembled(config) as live,
                serve(config.admin.host, config.admin.port, live.metrics.registry, live.health) as port,
            ):
                for notice in loaded.notices:
                    log.warning("config_notice", notice=str(notice))
                log.info("worker_started", mappings=len(config.mappings), admin=f"{config.admin.host}:{port}")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_obey, signals, live.worker)
                    tasks.start_soon(_collect_once_started, live.worker)
                    clean = await live.worker.run()
                    tasks.cancel_scope.cancel()
        except EsmError as error:
            complain(str(error))
            return FAILED
    log.info("worker_stopped", clean=clean)
    return 0 if clean else FAILED


async def _collect_once_started(worker: "Worker") -> None:
    """Look for garbage from now on, but never again at what was made on the way up: it stays."""
    import anyio

    with anyio.move_on_after(START_SECONDS):
        while not all(mapping.ready for mapping in worker.statuses()):  # noqa: ASYNC110 - nothing tells when it is
            await anyio.sleep(0.05)
    gc.freeze()
    gc.enable()


async def _obey(signals: "AsyncIterator[signal.Signals]", worker: "Worker") -> None:
    """The first signal stops softly, the second at once."""
    import anyio

    async with anyio.create_task_group() as tasks:
        async for number in signals:
            if worker.stopping:
                log.warning("worker_stops_now", signal=number.name)
                worker.stop_now()
                continue
            log.info("worker_stopping", signal=number.name, grace_seconds=worker.grace())
            worker.stop()
            if sys.stderr.isatty():
                tasks.start_soon(_say_what_it_waits_for, worker)


async def _say_what_it_waits_for(worker: "Worker") -> None:
    import anyio

    while True:
        if waiting := worker.waiting_for():
            complain(f"waiting for {waiting}; Ctrl-C again stops now")
        await anyio.sleep(SAY_AGAIN_SECONDS)
