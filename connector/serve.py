"""Runs the service as one process: until a signal, or until the supervisor of a worker has died."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence

import structlog

from connector.app import Connector
from connector.carrier_table import TABLE, Entry
from connector.config import Settings
from connector.worker import WorkerLink

log = structlog.get_logger()


async def serve(settings: Settings, table: Sequence[Entry] = TABLE, link: WorkerLink | None = None) -> None:
    """Runs until SIGTERM or SIGINT; a second signal ends the drain at once. `link`: to the supervisor, if this process
    is a worker; it also stops when it is replaced, or when the supervisor has died, and only the supervisor ends its
    drain."""
    stopping = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        if not stopping.is_set():
            stopping.set()
        elif link is None or link.is_broken:
            # A process manager may send the signal to a worker, too, so that it comes twice.
            hurry.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if not sys.stderr.isatty():
        # Without a handler, `systemctl reload` would kill this process. A terminal that is closed still ends it.
        loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP ignored: only a supervisor replaces its workers")
    if link is not None:
        link.on_replaced, link.on_hurry = stopping.set, hurry.set
    connector = Connector(settings, table, link)
    await connector.start()
    following = asyncio.create_task(_follow(link, stopping)) if link is not None else None
    # A full garbage collection scans all imported objects, which takes 100 ms without audio in any call. None of these
    # objects is garbage, so they are excluded.
    gc.collect()
    gc.freeze()
    if link is not None:
        link.is_ready()
    await stopping.wait()
    draining = asyncio.create_task(connector.stop(settings.drain_timeout))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait([draining, hurrying], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        connector.calls.end_all()
    hurrying.cancel()
    if following is not None:
        following.cancel()
    await draining


async def _follow(link: WorkerLink, stopping: asyncio.Event) -> None:
    await link.follow()
    log.error("the supervisor has died: this worker stops")
    stopping.set()
