"""Independent requests overtake one another, in a way that a seed repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from carrier_simulator import Callback, Document, Jitter, TwilioSimulator
from carrier_simulator.jitter import VARIABLE
from tests.unit.simulator.application import Application, signed_by_twilio

TO, FROM = "+15550001111", "+15552223333"
EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
IN_ORDER = ["initiated", "ringing", "in-progress", "completed"]


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with Application(signed_by_twilio("token")) as application:
        application.page("/hang-up", "<Hangup/>")
        application.page("/status", "")
        yield application


async def hear(application: Application, jitter: Jitter | None) -> list[str]:
    """What the application is sent, in its order, of a call that is answered and hangs up."""
    async with TwilioSimulator(auth_token="token", jitter=jitter) as twilio:
        callback = Callback(application.url + "/status", "POST", EVENTS)
        call = twilio.dial(TO, FROM, Document(application.url + "/hang-up"), callback=callback)
        await call.finished()
        assert call.errors == []
    hits = [application.hits.get_nowait() for _ in range(application.hits.qsize())]
    numbered = sorted((hit for hit in hits if hit.path == "/status"), key=lambda hit: int(hit.form["SequenceNumber"]))
    assert [hit.form["CallStatus"] for hit in numbered] == IN_ORDER
    return [hit.form["CallStatus"] if hit.path == "/status" else "document" for hit in hits]


@pytest.mark.parametrize(
    ("seed", "order"),
    [
        # Seeds whose requests lie 0.2 s apart.
        (246, ["ringing", "initiated", "document", "in-progress", "completed"]),
        (176, ["in-progress", "ringing", "initiated", "document", "completed"]),
    ],
)
async def test_callbacks_and_the_documents_fetch_overtake_one_another(
    application: Application, seed: int, order: list[str]
) -> None:
    assert await hear(application, Jitter(seed, most=0.8)) == order


async def test_without_one_they_come_in_order(application: Application) -> None:
    heard = await hear(application, None)
    assert [each for each in heard if each != "document"] == IN_ORDER


def test_the_delays_follow_from_the_seed_alone() -> None:
    def delays(seed: int, whose: str) -> list[float]:
        drawn = Jitter(seed, most=0.2).delays(whose)
        return [drawn.next(kind) for kind in ("callback", "document", "callback")]

    assert delays(1, "call 0") == delays(1, "call 0")
    assert len({*delays(1, "call 0"), *delays(1, "call 1"), *delays(2, "call 0")}) == 9
    assert all(0 <= delay <= 0.2 for delay in delays(1, "call 0"))
    other_kind_between = Jitter(1, most=0.2).delays("call 0")
    assert [other_kind_between.next("callback"), other_kind_between.next("callback")] == delays(1, "call 0")[::2]


async def test_a_call_that_is_stopped_leaves_no_callback_behind(application: Application) -> None:
    async with TwilioSimulator(auth_token="token", jitter=Jitter(1, most=60.0)) as twilio:
        callback = Callback(application.url + "/status", "POST", EVENTS)
        twilio.dial(TO, FROM, Document(application.url + "/hang-up"), callback=callback)
    assert [task for task in asyncio.all_tasks() if "Notices" in repr(task.get_coro())] == []


def test_the_environment_names_a_seed_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert TwilioSimulator().jitter is None
    monkeypatch.setenv(VARIABLE, "12")
    assert TwilioSimulator().jitter == Jitter(12)
    assert TwilioSimulator(jitter=None).jitter is None
    monkeypatch.setenv(VARIABLE, "often")
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a whole number"):
        TwilioSimulator()
