"""`connector serve --workers N`: starts N workers, replaces those that die, rolls and stops them.

The supervisor has no calls, no media and no store. The workers share the ports (SO_REUSEPORT) and the store, and each
has an instance name of its own. A worker that dies is replaced under its name, so that the successor takes up its
calls. On SIGHUP, and for a worker that asks for it, the successor is ready before the old worker drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import multiprocess

from connector.config import Settings
from connector.tasks import BackgroundTasks
from connector.worker import FOLDER, LINK, METRICS_FOLDER

log = structlog.get_logger()

START_LIMIT = 60.0
"""Seconds in which a worker must be ready."""
STABLE = 10.0
"""A worker that lived for so many seconds is replaced at once; otherwise there is a pause, see `pause_after`."""
LONGEST_DELAY = 30.0
END_MARGIN = 30.0
"""Seconds after the drain time until a worker that has not ended is killed."""
FAILED = 1
"""Exit status if no worker could start."""


class Worker:
    """One worker process."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.name = name
        self.process = process
        self.started_at = asyncio.get_running_loop().time()
        self.ready = asyncio.Event()
        self.exited = asyncio.Event()
        self.wants_successor = asyncio.Event()
        self.why = ""
        self.is_ending = False
        """It has been told to drain and to end."""
        self._reader, self._writer = link

    async def follow(self) -> None:
        """Read the worker's messages, until it has ended."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                match line.decode().strip().partition(" "):
                    case ("ready", _, _):
                        self.ready.set()
                    case ("recycle", _, why):
                        self.why = why
                        self.wants_successor.set()
        await self.process.wait()
        self._writer.close()
        if self.is_ending and self.ready.is_set() and self.process.returncode:
            log.error("a worker has died while it stopped", worker=self.name, status=self.process.returncode)
        self.ready.clear()
        self.exited.set()

    def tell(self, line: str) -> None:
        """See `connector.worker`."""
        if not self._writer.is_closing():
            self._writer.write(f"{line}\n".encode())

    def send_signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


@dataclass(slots=True)
class Slot:
    """The place of one worker of the service, which successive workers take."""

    number: int
    worker: Worker | None = None
    generation: int = 1
    roll: asyncio.Event = field(default_factory=asyncio.Event)
    rolled: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """See the module. `run` once."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        name: str,
        count: int,
        drain_timeout: float,
    ) -> None:
        """`command`: starts one worker; `name`: of the service, the workers' names begin with it."""
        self._command = list(command)
        self._environment = dict(environment)
        self._name = name
        self._end_limit = drain_timeout + END_MARGIN
        self._slots = [Slot(number) for number in range(1, count + 1)]
        self._workers: set[Worker] = set()
        self._folder = ""
        self._stopping = asyncio.Event()
        self._status = 0
        self._tasks = BackgroundTasks()
        self._keepers: list[asyncio.Task[None]] = []
        self._rolling: asyncio.Task[None] | None = None
        self._roll_again = False

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status."""
        loop = asyncio.get_running_loop()
        self._folder = tempfile.mkdtemp(prefix="connector-metrics-")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.roll)
        try:
            if await self._begin():
                await self._stopping.wait()
            else:
                self.stop()
            # A `_keep` task may be starting a worker at this moment.
            await asyncio.gather(*self._keepers)
            await asyncio.gather(*(worker.exited.wait() for worker in tuple(self._workers)))
        finally:
            await self._tasks.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        log.info("supervisor stopped")
        return self._status

    async def _begin(self) -> bool:
        """Start all workers; False if the first one ends before it is ready, for a reason that it has printed."""
        first, *others = self._slots
        # The first one alone: it upgrades the store, and an error in the settings is printed once. That may take long.
        first.worker = worker = await self._spawn(first)
        await _any_of(worker.ready.wait(), worker.exited.wait(), self._stopping.wait())
        if worker.exited.is_set() and not self._stopping.is_set():
            self._status = worker.process.returncode or FAILED
            return False
        self._keepers = [self._start(self._keep(slot), f"keep worker {slot.number}") for slot in (first, *others)]
        return True

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.start(work, name)

    # One slot

    async def _keep(self, slot: Slot) -> None:
        """Keep one worker of this slot running until the service stops."""
        failures = 0
        """Number of workers in a row that died soon, or did not start."""
        while not self._stopping.is_set():
            worker = slot.worker
            if worker is None:
                worker = await self._try_to_spawn(slot)
            if worker is not None:
                slot.worker = worker
                await self._until_ready(worker)
                await _any_of(
                    worker.exited.wait(), slot.roll.wait(), worker.wants_successor.wait(), self._stopping.wait()
                )
                if self._stopping.is_set():
                    return
                if not worker.exited.is_set():
                    await self._succeed(slot, worker)
                    continue
                slot.worker = None
                lived = asyncio.get_running_loop().time() - worker.started_at
                failures = 0 if lived >= STABLE else failures + 1
            else:
                failures += 1
            delay = pause_after(failures)
            name, status = (worker.name, worker.process.returncode) if worker is not None else (slot.number, None)
            log.error(
                "a worker has died and is replaced", worker=name, status=status, failures=failures, in_seconds=delay
            )
            # SIGHUP does not wait: the settings may have been corrected. The next worker has the new ones.
            await _any_of(self._stopping.wait(), slot.roll.wait(), timeout=delay)
            slot.roll.clear()
            slot.rolled.set()

    async def _try_to_spawn(self, slot: Slot) -> Worker | None:
        try:
            return await self._spawn(slot)
        except OSError as error:
            log.error("a worker process could not be started", worker=slot.number, error=str(error))
            return None

    async def _until_ready(self, worker: Worker) -> None:
        """A worker that is not ready in time is killed."""
        await _any_of(worker.ready.wait(), worker.exited.wait(), self._stopping.wait(), timeout=START_LIMIT)
        if not (worker.ready.is_set() or worker.exited.is_set() or self._stopping.is_set()):
            log.error("a worker is not ready in time and is killed", worker=worker.name, after_seconds=START_LIMIT)
            worker.send_signal(signal.SIGKILL)
            await worker.exited.wait()

    async def _succeed(self, slot: Slot, worker: Worker) -> None:
        """Start the successor; the old worker drains once the successor serves."""
        why = (worker.why if worker.wants_successor.is_set() else "") or "SIGHUP"
        worker.wants_successor.clear()
        slot.roll.clear()
        slot.generation += 1
        log.info("a worker gets a successor", worker=worker.name, why=why)
        successor = await self._try_to_spawn(slot)
        if successor is not None:
            await _any_of(successor.ready.wait(), successor.exited.wait(), self._stopping.wait(), timeout=START_LIMIT)
        if self._stopping.is_set():
            return
        if successor is not None and successor.ready.is_set():
            slot.worker = successor
            worker.tell("replaced")
            self._ends(worker)
            self._tell_workers()
        else:
            log.error("the successor is not ready: the old worker goes on", worker=worker.name, why=why)
            if successor is not None:
                self._end(successor)
        slot.rolled.set()

    async def _spawn(self, slot: Slot) -> Worker:
        """Raises OSError."""
        name = f"{self._name}-{slot.number}" + (f".{slot.generation}" if slot.generation > 1 else "")
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.enter_context(theirs)
            failed = undo.enter_context(contextlib.ExitStack())
            failed.enter_context(ours)
            environment = {
                **self._environment,
                "CONNECTOR_INSTANCE": name,
                "CONNECTOR_WORKERS": "1",
                "CONNECTOR_SHARE_PORTS": "true",
                METRICS_FOLDER: self._folder,
                FOLDER: self._folder,
                LINK: str(theirs.fileno()),
            }
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                pass_fds=[theirs.fileno()],
                # Ctrl-C reaches only the supervisor, which stops the workers.
                process_group=0,
            )
            failed.pop_all()
        worker = Worker(name, process, await asyncio.open_connection(sock=ours))
        self._workers.add(worker)
        self._start(self._follow(worker), f"follow {name}")
        self._start(self._tell_ready(worker), f"wait for {name}")
        if self._stopping.is_set():
            worker.tell("stopping")
            self._end(worker)
        return worker

    async def _follow(self, worker: Worker) -> None:
        await worker.follow()
        # Its counters stay part of the service's metrics; its gauges do not.
        multiprocess.mark_process_dead(worker.process.pid, self._folder)  # type: ignore[no-untyped-call]
        self._workers.discard(worker)
        self._tell_workers()

    async def _tell_ready(self, worker: Worker) -> None:
        await _any_of(worker.ready.wait(), worker.exited.wait())
        if worker.ready.is_set():
            log.info("worker ready", worker=worker.name, pid=worker.process.pid)
            self._tell_workers()

    def _tell_workers(self) -> None:
        ready = sum(slot.worker is not None and slot.worker.ready.is_set() for slot in self._slots)
        for worker in self._workers:
            worker.tell(f"workers {ready} {len(self._slots)}")

    # Signals

    def stop(self) -> None:
        """Stop all workers; they drain. A second time, they end their calls at once."""
        if self._stopping.is_set():
            log.info("the workers end their calls at once", workers=len(self._workers))
            for worker in self._workers:
                worker.tell("hurry")
            return
        log.info("stopping", workers=len(self._workers))
        self._stopping.set()
        # All know it before the first one looks for another process to which it can hand its calls.
        for worker in self._workers:
            worker.tell("stopping")
        for worker in self._workers:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        """Let the worker drain and end."""
        if not worker.is_ending:
            worker.send_signal(signal.SIGTERM)
            self._ends(worker)

    def _ends(self, worker: Worker) -> None:
        worker.is_ending = True
        self._start(self._kill_late(worker), f"kill {worker.name} if it does not end")

    async def _kill_late(self, worker: Worker) -> None:
        await _any_of(worker.exited.wait(), timeout=self._end_limit)
        if not worker.exited.is_set():
            log.error("a worker does not end and is killed", worker=worker.name, after_seconds=self._end_limit)
            worker.send_signal(signal.SIGKILL)

    def roll(self) -> None:
        """Replace all workers, one after the other; the next begins when the successor of the last one is ready. During
        that, another roll is remembered: workers that are replaced already have the former settings."""
        if self._rolling is None or self._rolling.done():
            self._rolling = self._start(self._roll(), "roll the workers")
        else:
            log.info("the workers are being replaced, and will then be replaced once more")
            self._roll_again = True

    async def _roll(self) -> None:
        while True:
            log.info("rolling", workers=len(self._slots))
            for slot in self._slots:
                slot.rolled.clear()
                slot.roll.set()
                await _any_of(slot.rolled.wait(), self._stopping.wait())
                if self._stopping.is_set():
                    return
            log.info("rolled", workers=len(self._slots))
            if not self._roll_again:
                return
            self._roll_again = False


def pause_after(failures: int) -> float:
    """Seconds until the next start, after so many workers in a row that died soon."""
    return min(LONGEST_DELAY, 2.0 ** min(failures - 1, 30)) if failures else 0.0


async def _any_of(*waits: Coroutine[Any, Any, Any], timeout: float | None = None) -> None:  # noqa: ASYNC109
    """Wait until one of `waits` has returned, or for `timeout` seconds."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def reserve(host: str, port: int) -> socket.socket:
    """A bound socket that reserves the port for the workers; with port 0, a free port. Raises OSError if another
    program listens there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # With SO_REUSEPORT, bind would also succeed if another service shares its ports, so it is tried without it first.
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        address = probe.getsockname()
    reserved = socket.socket(family, kind, protocol)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError:
        reserved.close()
        raise
    return reserved


def supervise(settings: Settings, command: Sequence[str]) -> int:
    """Run the service with `settings.workers` workers; return the exit status. `command` starts one worker, without its
    ports. Raises OSError if a port is taken."""
    with contextlib.ExitStack() as ports:
        environment = dict(os.environ)
        for variable, port in (("CONNECTOR_PORT", settings.port), ("CONNECTOR_GRPC_PORT", settings.grpc_port)):
            if port or variable == "CONNECTOR_PORT":
                try:
                    reserved = ports.enter_context(reserve(settings.host, port))
                except OSError as error:
                    why = f"cannot listen on {settings.host} port {port}: {error.strerror}; see {variable}"
                    raise OSError(why) from error
                environment[variable] = str(reserved.getsockname()[1])
        owner = settings.instance or f"{socket.gethostname()}:{environment['CONNECTOR_PORT']}"
        log.info("supervisor started", workers=settings.workers, port=int(environment["CONNECTOR_PORT"]))
        supervisor = Supervisor(command, environment, owner, settings.workers, settings.drain_timeout)
        return asyncio.run(_run(supervisor))


async def _run(supervisor: Supervisor) -> int:
    return await supervisor.run()
