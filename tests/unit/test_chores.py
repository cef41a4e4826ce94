"""What a process repeats goes on after whatever happens to it once, and the log says what that was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog

from connector.chores import REMIND_EVERY, Chore
from connector.errors import Unavailable
from tests.unit.call.virtual_time import virtual_time


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Work:
    def __init__(self, *outcomes: BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.done = 0

    async def __call__(self) -> None:
        self.done += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome


async def run(work: Work, seconds: float) -> None:
    chore = asyncio.create_task(Chore("tidy", work).repeat(1.0))
    await asyncio.sleep(seconds)
    chore.cancel()
    await asyncio.wait([chore])
    assert chore.cancelled()


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("a bug"), RuntimeError("loop"), asyncio.CancelledError()],
    ids=lambda e: type(e).__name__,
)
def test_an_error_that_nobody_foresaw_is_logged_whole_and_the_chore_goes_on(
    error: BaseException, lines: list[structlog.typing.EventDict]
) -> None:
    work = Work(error)

    @virtual_time
    async def whole() -> None:
        await run(work, 5.5)

    whole()
    assert work.done == 6
    (line,) = lines
    assert (line["log_level"], line["chore"], line["exc_info"]) == ("error", "tidy", True)


@pytest.mark.parametrize("error", [Unavailable("the store is away"), TimeoutError()], ids=lambda e: type(e).__name__)
def test_one_that_is_foreseen_is_a_line_and_its_end_another(
    error: Exception, lines: list[structlog.typing.EventDict]
) -> None:
    work = Work(error, error, error)

    @virtual_time
    async def whole() -> None:
        await run(work, 5.5)

    whole()
    assert work.done == 6
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "periodic task failed"),
        ("info", "periodic task works again"),
    ]
    assert lines[0]["error"]


async def test_what_fails_for_long_is_said_again_now_and_then(
    monkeypatch: pytest.MonkeyPatch, lines: list[structlog.typing.EventDict]
) -> None:
    now = 1000.0
    monkeypatch.setattr("connector.chores.time.monotonic", lambda: now)
    chore = Chore("tidy", Work(*(Unavailable("away") for _ in range(5))))
    for passed in (0.0, 1.0, REMIND_EVERY - 2, 2.0, 1.0):
        now += passed
        assert not await chore.once()
    assert len(lines) == 2


@virtual_time
async def test_a_cancellation_that_the_work_turns_into_another_error_ends_the_chore() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise Unavailable("the connection broke") from None

    chore = asyncio.create_task(Chore("tidy", work).repeat(1.0))
    await asyncio.sleep(5)
    chore.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([chore])
    assert chore.cancelled()
