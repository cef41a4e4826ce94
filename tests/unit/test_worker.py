"""A worker's link to its supervisor, and what the worker does with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
import structlog.testing

from connector import serve as serving
from connector.config_sources import load_settings
from connector.worker import ASK_AGAIN, LINK, LONGEST_PAUSE, Recycling, WorkerLink

PATIENCE = 20.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, WorkerLink]]:
    """The supervisor's end, and the worker's."""
    ours, theirs = socket.socketpair()
    environment = {LINK: str(theirs.detach())}
    link = WorkerLink.of(environment)
    assert link is not None
    assert environment == {}, "the worker's children have no link"
    with ours, link._link:
        ours.settimeout(PATIENCE)
        yield ours, link


def test_a_process_without_a_supervisor_has_no_link() -> None:
    assert WorkerLink.of({}) is None


def test_words_of_the_supervisor_are_known_without_a_turn_of_the_event_loop(
    ends: tuple[socket.socket, WorkerLink],
) -> None:
    """SIGTERM follows them: whoever acts on it knows why it came."""
    supervisor, link = ends
    assert [link.is_replaced, link.service_stops, link.is_broken] == [False, False, False]
    supervisor.send(b"workers 1 2\nrepl")
    assert [link.is_replaced, link.service_stops, link.is_broken] == [False, False, False]
    supervisor.send(b"aced\n")
    assert [link.is_replaced, link.service_stops, link.is_broken] == [True, False, False]
    assert (link.ready_workers, link.all_workers) == (1, 2)
    supervisor.send(b"a word of a later version\nstopping\n")
    assert [link.is_replaced, link.service_stops, link.is_broken] == [True, True, False]
    supervisor.close()
    assert [link.is_replaced, link.service_stops, link.is_broken] == [True, True, True]


async def test_the_death_of_the_supervisor_is_noticed(ends: tuple[socket.socket, WorkerLink]) -> None:
    supervisor, link = ends
    following = asyncio.create_task(link.follow())
    supervisor.send(b"workers 2 2\n")
    async with asyncio.timeout(PATIENCE):
        while link.ready_workers != 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    supervisor.close()
    async with asyncio.timeout(PATIENCE):
        await following


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("calls", "megabytes", "why"), [(5, 10.0, "5 calls"), (4, 501.0, "501 MB of memory")])
async def test_a_worker_asks_for_a_successor(
    ends: tuple[socket.socket, WorkerLink], calls: int, megabytes: float, why: str
) -> None:
    supervisor, link = ends
    recycling = Recycling(5, 500.0, link, Clock())
    await recycling.look(4, 499.0)
    await recycling.look(calls, megabytes)
    await recycling.look(calls + 1, megabytes + 1)
    assert supervisor.recv(100) == f"recycle {why}\n".encode()


async def test_without_limits_it_never_asks(ends: tuple[socket.socket, WorkerLink]) -> None:
    supervisor, link = ends
    await Recycling(0, 0.0, link, Clock()).look(10**6, 10**6)
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


async def test_a_worker_whose_successor_did_not_start_asks_again_more_and_more_seldom(
    ends: tuple[socket.socket, WorkerLink],
) -> None:
    supervisor, link = ends
    clock = Clock()
    recycling = Recycling(5, 0.0, link, clock)
    asked = []
    supervisor.setblocking(False)
    with structlog.testing.capture_logs() as logs:
        for _ in range(5401):
            await recycling.look(5, 0.0)
            try:
                supervisor.recv(100)
            except BlockingIOError:
                pass
            else:
                asked.append(clock.now)
            clock.now += 1.0
    pauses = [later - sooner for sooner, later in pairwise(asked)]
    assert pauses == [ASK_AGAIN, 2 * ASK_AGAIN, 4 * ASK_AGAIN, 8 * ASK_AGAIN, LONGEST_PAUSE, LONGEST_PAUSE]
    assert len(logs) == len(pauses)
    assert logs[0]["why"] == "5 calls"


@pytest.mark.parametrize("word", [b"replaced\n", b"stopping\n"])
async def test_a_worker_that_stops_does_not_ask_again(ends: tuple[socket.socket, WorkerLink], word: bytes) -> None:
    supervisor, link = ends
    clock = Clock()
    recycling = Recycling(5, 0.0, link, clock)
    await recycling.look(5, 0.0)
    assert supervisor.recv(100)
    supervisor.send(word)
    clock.now += 10 * LONGEST_PAUSE
    await recycling.look(5, 0.0)
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)


class FakeConnector:
    """In place of the service: its drain lasts until `end_all`."""

    def __init__(self, *_: object) -> None:
        FakeConnector.latest = self
        self.calls = self
        self.started, self.draining, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    latest: FakeConnector

    async def start(self) -> None:
        self.started.set()

    async def stop(self, drain: float) -> None:
        self.draining.set()
        await self.ended.wait()

    def end_all(self) -> None:
        self.ended.set()


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "Connector", FakeConnector)
    # It would keep all objects of the test run alive.
    monkeypatch.setattr("gc.freeze", lambda: None)


async def running(link: WorkerLink | None) -> asyncio.Task[None]:
    values = {"livekit_url": "ws://127.0.0.1:7880", "livekit_api_key": "key", "livekit_api_secret": "secret" * 6}
    service = asyncio.create_task(serving.serve(load_settings(None, values), link=link))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await FakeConnector.latest.started.wait()
    return service


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("connector")
async def test_a_second_sigterm_ends_the_drain_of_a_single_process() -> None:
    service = await running(None)
    async with asyncio.timeout(PATIENCE):
        sigterm()
        await FakeConnector.latest.draining.wait()
        sigterm()
        await service


@pytest.mark.usefixtures("connector")
async def test_only_the_supervisor_ends_the_drain_of_a_worker(ends: tuple[socket.socket, WorkerLink]) -> None:
    """systemd sends SIGTERM to all processes of a unit, and the supervisor sends it, too."""
    supervisor, link = ends
    service = await running(link)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(supervisor.recv, 100) == b"ready\n"
        sigterm()
        await FakeConnector.latest.draining.wait()
        sigterm()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not FakeConnector.latest.ended.is_set()
        supervisor.send(b"hurry\n")
        await service


@pytest.mark.usefixtures("connector")
async def test_a_worker_that_is_replaced_drains(ends: tuple[socket.socket, WorkerLink]) -> None:
    supervisor, link = ends
    service = await running(link)
    async with asyncio.timeout(PATIENCE):
        supervisor.send(b"replaced\n")
        await FakeConnector.latest.draining.wait()
        supervisor.send(b"hurry\n")
        await service


@pytest.mark.usefixtures("connector")
async def test_a_worker_whose_supervisor_has_died_stops_and_heeds_the_second_signal(
    ends: tuple[socket.socket, WorkerLink],
) -> None:
    supervisor, link = ends
    service = await running(link)
    async with asyncio.timeout(PATIENCE):
        supervisor.close()
        await FakeConnector.latest.draining.wait()
        sigterm()
        await service
