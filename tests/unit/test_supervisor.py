"""The supervisor of `connector serve --workers`, with small programs in place of the workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing

from connector.supervisor import LONGEST_DELAY, Supervisor, pause_after, reserve

PATIENCE = 20.0
WORKER = """
import os, signal, socket, sys
from pathlib import Path
name, folder = os.environ["CONNECTOR_INSTANCE"], Path(sys.argv[1])
link = socket.socket(fileno=int(os.environ["CONNECTOR_WORKER_LINK"]))
if (folder / f"{name}.fails").exists():
    sys.exit(3)
if (folder / f"{name}.hangs").exists():
    signal.pause()
def stop(*_):
    with (folder / f"{name}.terms").open("a") as terms:
        terms.write("SIGTERM ")
    if not (folder / f"{name}.drains").exists():
        sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(folder / f"{name}.{os.getpid()}").touch()
link.send(b"ready\\n")
while True:
    said = link.recv(100)
    if not said:
        (folder / f"{name}.orphaned").touch()
        sys.exit(0)
    with (folder / f"{name}.told").open("ab") as told:
        told.write(said)
    if b"hurry" in said or (b"replaced" in said and not (folder / f"{name}.drains").exists()):
        sys.exit(0)
    if (folder / f"{name}.recycle").exists():
        (folder / f"{name}.recycle").unlink()
        link.send(b"recycle 5 calls\\n")
"""


class Service:
    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.supervisor = Supervisor(
            (sys.executable, "-S", "-c", WORKER, str(folder)), os.environ, "service", count, drain_timeout=1.0
        )
        self.running = asyncio.create_task(self.supervisor.run())

    def pids(self, name: str) -> list[int]:
        """Processes that have run under this name, living or not."""
        found = (path.name.removeprefix(f"{name}.") for path in self.folder.glob(f"{name}.*"))
        # Not a generation: `service-1.2` begins the files of another name.
        return sorted(int(suffix) for suffix in found if suffix.isdigit())

    def told(self, name: str) -> str:
        path = self.folder / f"{name}.told"
        return path.read_text() if path.exists() else ""

    def terms(self, name: str) -> int:
        """How many SIGTERM this worker has got."""
        path = self.folder / f"{name}.terms"
        return path.read_text().count("SIGTERM") if path.exists() else 0

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the state of other processes announces nothing
                await asyncio.sleep(0.01)


@asynccontextmanager
async def service(folder: Path, count: int = 2) -> AsyncIterator[Service]:
    running = Service(folder, count)
    try:
        yield running
    finally:
        running.supervisor.stop()
        async with asyncio.timeout(PATIENCE):
            await running.running


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_every_worker_has_a_name_and_learns_how_many_are_ready(tmp_path: Path) -> None:
    async with service(tmp_path, 3) as running:
        await running.until(lambda: all(running.pids(f"service-{number}") for number in (1, 2, 3)))
        await running.until(lambda: "workers 3 3" in running.told("service-1"))
    assert not any(is_alive(pid) for number in (1, 2, 3) for pid in running.pids(f"service-{number}"))
    assert running.running.result() == 0


async def test_a_worker_that_is_killed_is_replaced_under_its_name(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-2"))
        (first,) = running.pids("service-2")
        os.kill(first, signal.SIGKILL)
        await running.until(lambda: len(running.pids("service-2")) == 2)
        assert len(running.pids("service-1")) == 1


async def test_a_roll_starts_the_successor_before_the_old_worker_ends(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        old = running.pids("service-1") + running.pids("service-2")
        running.supervisor.roll()
        await running.until(lambda: running.pids("service-1.2") and running.pids("service-2.2"))
        await running.until(lambda: not any(map(is_alive, old)))
        assert "replaced" in running.told("service-1")
        assert "replaced" in running.told("service-2")
        await running.until(lambda: "workers 2 2" in running.told("service-2.2"))


async def test_a_worker_that_asks_for_it_gets_a_successor_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "service-1.recycle").touch()
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1.2"))
        (old,) = running.pids("service-1")
        await running.until(lambda: not is_alive(old))
        await running.until(lambda: running.pids("service-2"))
        assert not running.pids("service-2.2")


async def test_a_successor_that_cannot_start_leaves_the_old_worker_in_place(tmp_path: Path) -> None:
    (tmp_path / "service-1.2.fails").touch()
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        (old,) = running.pids("service-1")
        running.supervisor.roll()
        await running.until(lambda: running.pids("service-2.2"))
        assert is_alive(old)


async def test_a_first_worker_that_cannot_start_ends_the_service_with_its_status(tmp_path: Path) -> None:
    (tmp_path / "service-1.fails").touch()
    running = Service(tmp_path, 2)
    async with asyncio.timeout(PATIENCE):
        assert await running.running == 3
    assert not running.pids("service-2")


async def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.supervisor.END_MARGIN", -0.9)
    async with service(tmp_path, 1) as running:
        await running.until(lambda: running.pids("service-1"))
        (pid,) = running.pids("service-1")
        os.kill(pid, signal.SIGSTOP)
    assert not is_alive(pid)


async def test_a_worker_learns_why_it_stops(tmp_path: Path) -> None:
    (tmp_path / "service-1.drains").touch()
    (tmp_path / "service-2.2.drains").touch()
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        running.supervisor.roll()
        await running.until(lambda: "replaced" in running.told("service-1"))
        assert "stopping" not in running.told("service-1")
        await running.until(lambda: "workers 2 2" in running.told("service-2.2"))
        running.supervisor.stop()
        await running.until(lambda: running.terms("service-2.2"))
        await running.until(lambda: "stopping" in running.told("service-2.2"))
        assert "replaced" not in running.told("service-2.2")
        await running.until(lambda: "stopping" in running.told("service-1"))
        running.supervisor.stop()
    assert running.terms("service-1") == 0, "its drain went on; the second stop came over the link"


async def test_sigterm_during_a_roll_reaches_each_worker_once(tmp_path: Path) -> None:
    (tmp_path / "service-1.drains").touch()
    (tmp_path / "service-1.2.hangs").touch()
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        running.supervisor.roll()
        await running.until(lambda: len(running.supervisor._workers) == 3)
        running.supervisor.stop()
        await running.until(lambda: "stopping" in running.told("service-1"))
        await running.until(lambda: len(running.supervisor._workers) == 1)
        assert running.terms("service-1") == 1
        (draining,) = running.pids("service-1")
        os.kill(draining, signal.SIGKILL)


async def test_sighup_during_a_roll_rolls_once_more(tmp_path: Path) -> None:
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        running.supervisor.roll()
        running.supervisor.roll()
        running.supervisor.roll()
        await running.until(lambda: "workers 2 2" in running.told("service-2.3"))
        assert running.supervisor._rolling is not None
        await running.supervisor._rolling
        assert not running.pids("service-1.4")


async def test_a_worker_that_dies_while_it_drains_is_reported_and_not_replaced_again(tmp_path: Path) -> None:
    (tmp_path / "service-1.drains").touch()
    with structlog.testing.capture_logs() as logs:
        async with service(tmp_path) as running:
            await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
            (pid,) = running.pids("service-1")
            running.supervisor.roll()
            await running.until(lambda: "replaced" in running.told("service-1"))
            await running.until(lambda: "workers 2 2" in running.told("service-2.2"))
            os.kill(pid, signal.SIGKILL)
            await running.until(lambda: any("while it stopped" in line["event"] for line in logs))
    assert running.pids("service-1") == [pid]
    assert len(running.pids("service-1.2")) == 1


async def test_a_worker_that_dies_at_every_start_is_tried_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.supervisor.LONGEST_DELAY", 0.01)
    (tmp_path / "service-2.fails").touch()
    with structlog.testing.capture_logs() as logs:
        async with service(tmp_path) as running:

            def deaths() -> list[tuple[str, int, int]]:
                died = [line for line in logs if line["event"] == "a worker has died and is replaced"]
                return [(line["worker"], line["status"], line["failures"]) for line in died]

            await running.until(lambda: len(deaths()) >= 3)
            assert deaths()[:3] == [("service-2", 3, 1), ("service-2", 3, 2), ("service-2", 3, 3)]
            assert "workers 1 2" in running.told("service-1")
            assert "workers 2 2" not in running.told("service-1")
            (tmp_path / "service-2.fails").unlink()
            await running.until(lambda: "workers 2 2" in running.told("service-1"))


async def test_a_worker_that_never_becomes_ready_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.supervisor.START_LIMIT", 2.0)
    (tmp_path / "service-2.hangs").touch()
    with structlog.testing.capture_logs() as logs:
        async with service(tmp_path) as running:
            await running.until(lambda: any("not ready in time" in line["event"] for line in logs))
            (tmp_path / "service-2.hangs").unlink()
            await running.until(lambda: "workers 2 2" in running.told("service-1"))


async def test_a_process_that_the_system_refuses_to_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.supervisor.LONGEST_DELAY", 0.01)
    async with service(tmp_path) as running:
        await running.until(lambda: running.pids("service-1") and running.pids("service-2"))
        (pid,) = running.pids("service-2")
        command, running.supervisor._command = running.supervisor._command, [str(tmp_path / "missing")]
        with structlog.testing.capture_logs() as logs:
            os.kill(pid, signal.SIGKILL)
            await running.until(lambda: any("could not be started" in line["event"] for line in logs))
        running.supervisor._command = command
        await running.until(lambda: len(running.pids("service-2")) == 2)


def test_the_pause_between_starts_doubles_up_to_a_limit() -> None:
    assert [pause_after(failures) for failures in (0, 1, 2, 3, 6, 2000)] == [0, 1, 2, 4, LONGEST_DELAY, LONGEST_DELAY]


def test_a_reserved_port_is_open_to_the_workers_and_refused_to_another_service() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        host, port = reserved.getsockname()
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((host, port))
            worker.listen()
            with pytest.raises(OSError, match="in use"):
                reserve(host, port).close()
