"""A phone is hung up in the end, whatever the carrier, the store or the process do in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from connector.call.registry import hang_ups
from connector.call.registry.hang_ups import HangUps
from connector.errors import ConnectorError, FailedPrecondition, Internal, NotFound, ResourceExhausted, Unavailable
from connector.metrics import Metrics
from connector.model.call import CarrierCall
from connector.model.provider import Provider
from connector.storage.base import StoreError
from tests.carriers import CARRIERS
from tests.unit.call.fakes import FakeHangUps, Faults
from tests.unit.call.virtual_time import virtual_time

CALL = CarrierCall("v3:1", "the-account", "control")
FAILURES = [
    Unavailable("503"),
    ResourceExhausted("429"),
    Internal("401"),
    FailedPrecondition("409"),
    TimeoutError(),
    ZeroDivisionError("a bug"),
]


class Carrier:
    """Answers what it is told, in turn, and then that it has hung up; None hangs for ever."""

    ends_with_stream = False
    stream_outlives_transfer = True

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, CarrierCall, str]] = []
        self.done = asyncio.Event()

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        self.asked.append((asyncio.get_running_loop().time(), call, say))
        if self.answers:
            answer = self.answers.pop(0)
            if answer is None:
                await asyncio.get_running_loop().create_future()
            else:
                raise answer
        self.done.set()

    async def transfer(self, call: CarrierCall, to: str) -> None:
        raise AssertionError

    @property
    def times(self) -> list[float]:
        return [at for at, _, _ in self.asked]


class Process:
    """One that hangs phones up; those of one `queue` share a store."""

    def __init__(self, carrier: Carrier | None, queue: FakeHangUps | None = None) -> None:
        self.faults = Faults()
        self.queue = queue or FakeHangUps(self.faults)
        self.metrics = Metrics()
        self.log = structlog.testing.LogCapture()
        structlog.configure(processors=[structlog.contextvars.merge_contextvars, self.log])
        control: dict[Provider, Any] = {Provider.TELNYX: carrier} if carrier else {}
        clock = asyncio.get_running_loop().time
        self.hang_ups = HangUps(self.queue, CARRIERS, control, self.metrics, clock, lambda: 0.0)

    async def hang_up(self, say: str = "") -> None:
        await self.hang_ups.hang_up("call_1", Provider.TELNYX, CALL, say)

    async def make_sure(self) -> None:
        await self.hang_ups.make_sure("call_1", Provider.TELNYX, CALL)

    def counted(self, result: str) -> float:
        return float(self.metrics.hang_ups.labels("telnyx", result)._value.get())


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[None]:
    await process.hang_ups.start()
    try:
        yield
    finally:
        await process.hang_ups.stop()


@virtual_time
async def test_the_first_try_is_made_at_once_and_nothing_is_left() -> None:
    carrier = Carrier()
    process = Process(carrier)
    async with running(process):
        await process.hang_up("Goodbye.")
        assert carrier.asked == [(0.0, CALL, "Goodbye.")]
        assert await process.queue.pending() == 0
        await asyncio.sleep(3600)
    assert len(carrier.asked) == 1
    assert process.counted("done") == 1


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@virtual_time
async def test_what_fails_is_tried_again_without_the_call(failure: Exception) -> None:
    carrier = Carrier(failure)
    process = Process(carrier)
    async with running(process):
        await process.hang_up("Goodbye.")
        assert carrier.times == [0.0]
        assert await process.queue.pending() == 1
        await carrier.done.wait()
        assert [at for at in carrier.times if at > 2] == []
        await asyncio.sleep(3600)
    assert [(call, say) for _, call, say in carrier.asked] == 2 * [(CALL, "Goodbye.")]
    assert (process.counted("failed"), process.counted("done"), await process.queue.pending()) == (1, 1, 0)


@virtual_time
async def test_a_bug_after_the_try_is_logged_with_the_call_and_the_lease_brings_the_hang_up_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    carrier = Carrier()
    process = Process(carrier)
    settle = process.queue.settle

    async def broken(_: str) -> None:
        monkeypatch.setattr(process.queue, "settle", settle)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(process.queue, "settle", broken)
    async with running(process):
        assert await process.hang_ups.hang_up("call_1", Provider.TELNYX, CALL) is None
        (error,) = [entry for entry in process.log.entries if entry["log_level"] == "error"]
        assert (error["call_id"], error["task"]) == ("call_1", "hang up a phone")
        await asyncio.sleep(2 * hang_ups.LEASE)
    assert (len(carrier.asked), await process.queue.pending()) == (2, 0)


@virtual_time
async def test_a_phone_that_the_carrier_does_not_know_is_told_of_and_not_asked_for_again() -> None:
    carrier = Carrier(NotFound("no such call in this account"))
    process = Process(carrier)
    async with running(process):
        await process.hang_up()
        await asyncio.sleep(600)
    assert (len(carrier.asked), await process.queue.pending()) == (1, 0)
    assert [entry["log_level"] for entry in process.log.entries] == ["warning"]


@virtual_time
async def test_it_is_tried_for_minutes_with_growing_pauses_and_then_given_up_loudly() -> None:
    carrier = Carrier(*[Unavailable("503")] * 1000)
    process = Process(carrier)
    async with running(process):
        await process.hang_up()
        await asyncio.sleep(2 * hang_ups.GIVE_UP_AFTER)
    pauses = [after - before for before, after in zip(carrier.times, carrier.times[1:], strict=False)]
    assert pauses[:5] == pytest.approx([1, 2, 4, 8, 16], abs=0.2)
    assert max(pauses) <= hang_ups.MAX_DELAY + 0.2
    assert hang_ups.GIVE_UP_AFTER - 1 < carrier.times[-1] < hang_ups.GIVE_UP_AFTER + 1
    assert (process.counted("given_up"), await process.queue.pending()) == (1, 0)
    (error,) = [entry for entry in process.log.entries if entry["log_level"] == "error"]
    assert (error["carrier_call_id"], error["carrier"], error["call_id"]) == ("v3:1", "telnyx", "call_1")


@virtual_time
async def test_a_carrier_that_does_not_answer_holds_the_end_up_for_a_bounded_time_only() -> None:
    carrier = Carrier(None)
    process = Process(carrier)
    async with running(process):
        await process.hang_up()
        assert asyncio.get_running_loop().time() == pytest.approx(hang_ups.PATIENCE)
        await carrier.done.wait()
    assert len(carrier.asked) == 2


@virtual_time
async def test_the_intent_is_in_the_store_before_the_first_try_so_that_another_process_takes_it_over() -> None:
    """The process is killed in the middle of its first request."""
    dying = Process(Carrier(None))
    killed = asyncio.create_task(dying.hang_up())
    await asyncio.sleep(0.1)
    carrier = Carrier()
    successor = Process(carrier, dying.queue)
    async with running(successor):
        await carrier.done.wait()
        assert carrier.times[0] == pytest.approx(hang_ups.LEASE, abs=hang_ups.LOOK_AGAIN)
    assert await dying.queue.pending() == 0
    await killed
    await dying.hang_ups.stop()


@virtual_time
async def test_of_two_processes_only_one_asks_the_carrier() -> None:
    one, other = Carrier(), Carrier()
    first = Process(one)
    second = Process(other, first.queue)
    async with running(first), running(second):
        await first.hang_ups.keep("call_1", Provider.TELNYX, CALL)
        await asyncio.sleep(60)
    assert len(one.asked) + len(other.asked) == 1


@virtual_time
async def test_a_phone_that_is_being_hung_up_is_not_hung_up_twice() -> None:
    carrier = Carrier(Unavailable("503"))
    process = Process(carrier)
    async with running(process):
        await process.hang_up()
        await process.hang_up()
        await process.hang_ups.keep("call_1", Provider.TELNYX, CALL)
        await carrier.done.wait()
        await asyncio.sleep(60)
    assert len(carrier.asked) == 2


@pytest.mark.parametrize("fault", [StoreError("away"), None], ids=["fails", "hangs"])
@virtual_time
async def test_a_store_that_does_not_take_it_keeps_nobody_on_the_line(fault: ConnectorError | None) -> None:
    carrier = Carrier(Unavailable("503"), Unavailable("503"))
    process = Process(carrier)
    process.faults.planned["hang_ups.put"] = fault
    async with running(process):
        await process.hang_up()
        await carrier.done.wait()
        await asyncio.sleep(60)
    assert len(carrier.asked) == 3


@virtual_time
async def test_what_carrier_and_store_both_refuse_until_the_process_stops_is_told() -> None:
    carrier = Carrier(*[Unavailable("503")] * 100)
    process = Process(carrier)
    process.faults.planned["hang_ups.put"] = StoreError("away")
    async with running(process):
        await process.hang_up()
    assert any(entry["log_level"] == "error" and entry["carrier_call_id"] == "v3:1" for entry in process.log.entries)


@virtual_time
async def test_a_store_that_cannot_be_told_of_the_success_has_it_asked_once_more_and_no_more() -> None:
    carrier = Carrier()
    process = Process(carrier)
    process.faults.planned["hang_ups.settle"] = StoreError("away")
    async with running(process):
        await process.hang_up()
        del process.faults.planned["hang_ups.settle"]
        await asyncio.sleep(600)
    # By then the call is over, which a carrier's API client takes for done.
    assert len(carrier.asked) == 2


@virtual_time
async def test_a_store_that_fails_for_a_while_does_not_end_the_tries() -> None:
    carrier = Carrier(*[Unavailable("503")] * 3)
    process = Process(carrier)
    async with running(process):
        await process.hang_up()
        process.faults.planned["hang_ups.retry"] = StoreError("away")
        await asyncio.sleep(60)
        process.faults.planned.clear()
        await carrier.done.wait()


@virtual_time
async def test_without_the_carriers_key_it_waits_for_a_process_that_has_it() -> None:
    without = Process(None)
    carrier = Carrier()
    having = Process(carrier, without.queue)
    async with running(without):
        await without.hang_ups.keep("call_1", Provider.TELNYX, CALL)
        await asyncio.sleep(1)
        async with running(having):
            await carrier.done.wait()
    assert await having.queue.pending() == 0


@virtual_time
async def test_a_stop_lets_a_try_finish_and_says_what_is_left() -> None:
    process = Process(Carrier(*[Unavailable("503")] * 100))
    async with running(process):
        await process.hang_up()
    assert [entry["phones"] for entry in process.log.entries if "phones" in entry] == [1]


# A carrier that may come back with the phone


@virtual_time
async def test_a_phone_that_the_carrier_has_let_go_is_hung_up_after_a_moment() -> None:
    carrier = Carrier(Unavailable("503"))
    process = Process(carrier)
    async with running(process):
        await process.make_sure()
        assert carrier.asked == []
        await carrier.done.wait()
    assert carrier.times[0] == pytest.approx(hang_ups.RETURN_GRACE, abs=0.1)
    assert (len(carrier.asked), await process.queue.pending()) == (2, 0)


@pytest.mark.parametrize("after", [0.0, 1.0, 1.9])
@pytest.mark.parametrize("where", ["here", "there"])
@virtual_time
async def test_a_carrier_that_comes_back_withdraws_it_at_whichever_process(after: float, where: str) -> None:
    carrier = Carrier()
    process = Process(carrier)
    other = Process(carrier, process.queue)
    async with running(process), running(other):
        await process.make_sure()
        await asyncio.sleep(after)
        await (process if where == "here" else other).hang_ups.withdraw("call_1")
        await asyncio.sleep(3600)
        assert (carrier.asked, await process.queue.pending()) == ([], 0)
        # Another leg of the same carrier call is another matter.
        await process.hang_ups.hang_up("call_2", Provider.TELNYX, CALL)
    assert len(carrier.asked) == 1


@virtual_time
async def test_what_was_withdrawn_before_is_not_kept_whoever_wants_it() -> None:
    carrier = Carrier()
    process = Process(carrier)
    other = Process(carrier, process.queue)
    async with running(process):
        await other.hang_ups.withdraw("call_1")
        await process.make_sure()
        await process.hang_up()
        await process.hang_ups.keep("call_1", Provider.TELNYX, CALL)
        await asyncio.sleep(3600)
        assert carrier.asked == []
        await other.hang_ups.allow("call_1")
        await process.hang_up()
    assert len(carrier.asked) == 1


@virtual_time
async def test_a_process_that_stops_in_the_moment_leaves_it_to_the_next() -> None:
    carrier = Carrier()
    process = Process(carrier)
    async with running(process):
        await process.make_sure()
    assert carrier.asked == []
    async with running(Process(carrier, process.queue)):
        await carrier.done.wait()
    assert carrier.times[0] >= hang_ups.RETURN_GRACE


@pytest.mark.parametrize("comes_back", [True, False])
@virtual_time
async def test_a_store_that_is_away_in_the_moment_is_asked_again_whether_the_phone_is_wanted(comes_back: bool) -> None:
    carrier = Carrier()
    process = Process(carrier)
    other = Process(carrier, process.queue)
    async with running(process):
        process.faults.planned["hang_ups.put"] = StoreError("away")
        await process.make_sure()
        del process.faults.planned["hang_ups.put"]
        if comes_back:
            await other.hang_ups.withdraw("call_1")
        await asyncio.sleep(3600)
    assert len(carrier.asked) == (0 if comes_back else 1)


@virtual_time
async def test_a_store_that_stays_away_does_not_keep_the_phone_on_the_line() -> None:
    carrier = Carrier()
    process = Process(carrier)
    process.faults.planned["hang_ups.put"] = StoreError("away")
    async with running(process):
        await process.make_sure()
        await carrier.done.wait()
    assert carrier.times[0] == pytest.approx(hang_ups.RETURN_GRACE, abs=0.1)
