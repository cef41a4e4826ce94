"""A real livekit-server for each test process; its log is printed for a failing test."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from demo.livekit_server import LiveKitServer
from tests.integration.harness import Stage, stage_on
from tests.integration.scene import captured_log

# Last of all at the exit, after the SDK has closed itself: a thread of its that still waits to call into Python gets
# to do so. Under an interpreter that goes down it would abort the process, after the last test has passed.
atexit.register(time.sleep, 0.2)

_new_rsa_key = rsa.generate_private_key
_logs: list[tuple[str, Callable[[int], str]]] = []


@contextmanager
def logs_printed(name: str, log: Callable[[int], str]) -> Iterator[None]:
    """A test that fails meanwhile prints the last lines of this server; `log` is told how many."""
    entry = (name, log)
    _logs.append(entry)
    try:
        yield
    finally:
        _logs.remove(entry)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"{name}, last lines", log(60)) for name, log in _logs]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
            # Coverage slows a call's audio down by half, on machines that are busy with WebRTC already. It is measured
            # where the tests are quick (CONTRIBUTING.md).
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session", autouse=True)
def _few_rsa_keys() -> Iterator[None]:
    """A connector with a store of its own makes a key, up to half a second of work: here all share three in turn, so
    that the next of one is still another."""
    make = cache(lambda index: _new_rsa_key(public_exponent=65537, key_size=2048))
    turn = cycle(range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsa, "generate_private_key", lambda **_: make(next(turn)))
        yield


@pytest.fixture(scope="session")
def livekit() -> Iterator[LiveKitServer]:
    """Shared by the tests of this process: use a room name of your own, and leave it running."""
    server = LiveKitServer()
    asyncio.run(server.start())
    with logs_printed("livekit-server", server.log):
        yield server
    asyncio.run(server.stop())


@pytest.fixture
async def own_livekit() -> AsyncIterator[LiveKitServer]:
    """One that a test may stop and start."""
    async with LiveKitServer() as server:
        with logs_printed("livekit-server", server.log):
            yield server


@pytest.fixture
async def stage(livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(livekit, tmp_path) as stage:
        yield stage


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The structured log lines of this process, as dictionaries."""
    with captured_log() as lines:
        yield lines


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room name no other test has."""
    name: str = request.node.name
    return f"{name}-{id(request)}"
