"""The queue's other end: when a delivery is tried, in which order, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from connector.metrics import Metrics
from connector.webhooks import sender
from connector.webhooks.post import Outcome
from connector.webhooks.sender import Sender, delay, next_attempt
from connector.webhooks.signing import KeyRing
from tests.captured_logs import captured_logs, lines_of
from tests.unit.call.virtual_time import virtual_time
from tests.unit.webhooks.fakes import KEY, FakeEndpoints, FakeKeys, FakePoster, FakeQueue, at_once, delivery, endpoint

DAY = 24 * 3600.0
DOWN = Outcome(503, "HTTP 503")


@dataclass
class Stage:
    queue: FakeQueue
    endpoints: FakeEndpoints
    poster: FakePoster
    metrics: Metrics
    sender: Sender

    async def put(self, *deliveries: object) -> None:
        await self.queue.put(deliveries)  # type: ignore[arg-type]
        self.sender.wake()

    async def until_empty(self) -> None:
        step = 1.0
        while self.queue.waiting:
            await asyncio.sleep(step)
            # A day in steps of a second is seconds of work.
            step = min(300.0, 1.2 * step)

    def counted(self, result: str) -> float:
        return self.metrics.webhooks.labels(result)._value.get()  # type: ignore[no-any-return]


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[Stage]:
    queue, endpoints = FakeQueue(), FakeEndpoints({name: endpoint(name) for name in names})
    poster, metrics = FakePoster(), Metrics()
    clock = asyncio.get_running_loop().time
    ring = KeyRing(FakeKeys(KEY), clock, at_once)
    # No jitter: what comes when is then exact.
    stage = Stage(
        queue, endpoints, poster, metrics, Sender(queue, endpoints, ring, poster, metrics, clock, chance=lambda: 0.0)
    )
    await stage.sender.start()
    try:
        yield stage
    finally:
        await stage.sender.stop()


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 1), (2, 2), (3, 4), (7, 64), (10, 512), (11, 900), (12, 900), (5000, 900)]
)
def test_the_delay_doubles_up_to_a_quarter_of_an_hour(attempt: int, longest: float) -> None:
    assert delay(attempt, 0.0) == longest
    assert delay(attempt, 1.0) == longest / 2


def test_the_last_attempt_is_when_the_day_is_over() -> None:
    late = replace(delivery("d", "a"), attempts=100)
    assert next_attempt(late, 1000.0, 0.0) == 1900.0
    assert next_attempt(late, DAY - 60, 0.0) == DAY
    assert next_attempt(late, DAY, 0.0) is None
    assert next_attempt(late, DAY + 5, 0.0) is None


@virtual_time
async def test_a_delivery_arrives_whole_at_once_and_once() -> None:
    async with running("a") as stage:
        await stage.put(delivery("d1", "a"))
        await stage.until_empty()
        (post,) = stage.poster.posts
        assert post.body == b'{"webhookType":"call-started"}'
        assert post.delivery_id == "d1"
        assert post.headers["videosdk-signature"]
        assert post.at < 0.01
        (attempt,) = stage.queue.log
        assert (attempt.number, attempt.status, attempt.error) == (1, 200, "")
        assert stage.counted("delivered") == 1


@virtual_time
async def test_a_failure_is_tried_again_with_the_same_id_ever_more_rarely() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = DOWN
        await stage.put(delivery("d1", "a"))
        await asyncio.sleep(16)
        stage.poster.answers["a"] = Outcome(204)
        await stage.until_empty()
        assert [post.at for post in stage.poster.posts] == pytest.approx([0, 1, 3, 7, 15, 31], abs=0.1)
        assert {post.delivery_id for post in stage.poster.posts} == {"d1"}
        assert [attempt.number for attempt in stage.queue.log] == [1, 2, 3, 4, 5, 6]
        assert (stage.counted("failed"), stage.counted("delivered")) == (5, 1)


@virtual_time
async def test_it_is_given_up_after_a_day_and_said_to_be() -> None:
    with captured_logs() as log:
        async with running("a") as stage:
            stage.poster.answers["a"] = DOWN
            await stage.put(delivery("d1", "a"))
            await stage.until_empty()
            assert stage.poster.posts[-1].at == pytest.approx(DAY, abs=0.1)
            assert stage.poster.posts[-2].at > DAY - 901
            assert stage.counted("given_up") == 1
        (line,) = [line for line in lines_of(log) if line["event"] == "webhook given up after a day"]
    assert (line["endpoint"], line["call_id"], line["status"]) == ("a", "call_1", 503)
    assert "s3cret" not in log.getvalue()
    assert "webhookType" not in log.getvalue()


@virtual_time
async def test_one_calls_events_wait_for_each_other_and_other_calls_do_not() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = DOWN
        await stage.put(delivery("first", "a", "call_1"), delivery("second", "a", "call_1"))
        await asyncio.sleep(0.5)
        stage.poster.answers.clear()
        await stage.put(delivery("other", "a", "call_2", 0.5))
        await stage.until_empty()
        assert [post.delivery_id for post in stage.poster.posts] == ["first", "other", "first", "second"]


@virtual_time
async def test_a_call_given_up_lets_its_next_event_go() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = DOWN
        await stage.put(delivery("first", "a"))
        await asyncio.sleep(DAY - 1)
        await stage.put(delivery("second", "a", at=DAY - 1))
        await asyncio.sleep(2)
        stage.poster.answers.clear()
        await stage.until_empty()
        assert [post.delivery_id for post in stage.poster.posts[-2:]] == ["second", "second"]


@virtual_time
async def test_endpoints_that_never_answer_delay_nobody() -> None:
    silent = [f"silent{number}" for number in range(30)]
    async with running("a", *silent) as stage:
        stage.poster.answers = dict.fromkeys(silent, 10.0)
        await stage.put(*[delivery(f"{name}-{call}", name, f"call_{call}") for name in silent for call in range(20)])
        # Past the moment at which each of them is known to fail, and all that they had is overdue.
        await asyncio.sleep(25)
        for number in range(50):
            before = asyncio.get_running_loop().time()
            await stage.put(delivery(f"d{number}", "a", f"call_{number}", before))
            await asyncio.sleep(0.2)
        assert len(stage.poster.at("a")) == 50
        assert all(
            post.at - 25 == pytest.approx(0.2 * number, abs=0.05) for number, post in enumerate(stage.poster.at("a"))
        )
        assert max(stage.poster.most_open.values()) <= sender.MAX_AT_ONCE_EACH
        stage.poster.answers.clear()


@virtual_time
async def test_a_retry_comes_in_time_though_another_endpoint_is_overdue() -> None:
    async with running("a", "silent") as stage:
        stage.poster.answers = {"a": DOWN, "silent": 10.0}
        await stage.put(*[delivery(f"s{call}", "silent", f"call_{call}") for call in range(20)])
        await stage.put(delivery("d1", "a"))
        await asyncio.sleep(4)
        assert [post.at for post in stage.poster.at("a")] == pytest.approx([0, 1, 3], abs=0.1)
        stage.poster.answers.clear()


@virtual_time
async def test_an_endpoint_that_fails_gets_one_at_a_time_until_it_answers() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = 10.0
        await stage.put(*[delivery(f"d{call}", "a", f"call_{call}") for call in range(12)])
        await asyncio.sleep(5)
        assert len(stage.poster.posts) == sender.MAX_AT_ONCE_EACH
        await asyncio.sleep(25)
        assert len(stage.poster.posts) == sender.MAX_AT_ONCE_EACH + 2
        stage.poster.answers.clear()
        await stage.until_empty()
        assert {post.delivery_id for post in stage.poster.posts} == {f"d{call}" for call in range(12)}


@virtual_time
async def test_what_another_process_left_is_delivered_when_its_lease_is_over() -> None:
    async with running("a") as stage:
        await stage.queue.put([delivery("d1", "a")])
        await stage.queue.take(0.0, sender.LEASE, 1)
        await stage.until_empty()
        (post,) = stage.poster.posts
        assert sender.LEASE <= post.at <= sender.LEASE + sender.LOOK_AGAIN


@virtual_time
async def test_stopping_finishes_what_is_on_its_way_and_starts_nothing() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = 3.0
        await stage.put(delivery("d1", "a"), delivery("d2", "a"))
        await asyncio.sleep(1)
        await stage.sender.stop()
        assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=0.1)
        assert [attempt.delivery_id for attempt in stage.queue.log] == ["d1"]
        assert [one.id for one in stage.queue.waiting] == ["d1", "d2"]


@virtual_time
async def test_stopping_does_not_wait_for_ever() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = 10.0
        await stage.put(delivery("d1", "a"))
        await asyncio.sleep(1)
        await stage.sender.stop()
        assert asyncio.get_running_loop().time() == pytest.approx(1 + sender.STOP_PATIENCE, abs=0.1)
        assert [one.id for one in stage.queue.waiting] == ["d1"]


@virtual_time
async def test_what_waits_is_counted() -> None:
    async with running("a") as stage:
        stage.poster.answers["a"] = DOWN
        await stage.put(*[delivery(f"d{call}", "a", f"call_{call}") for call in range(3)])
        await asyncio.sleep(sender.LOOK_AGAIN + 1)
        assert stage.metrics.webhooks_pending._value.get() == 3
        stage.poster.answers.clear()
        await stage.until_empty()
        await asyncio.sleep(2 * sender.LOOK_AGAIN)
        assert stage.metrics.webhooks_pending._value.get() == 0


@virtual_time
async def test_a_store_that_fails_for_a_while_is_asked_again() -> None:
    async with running("a") as stage:
        stage.queue.broken = True
        stage.sender.wake()
        await asyncio.sleep(10)
        stage.queue.broken = False
        await stage.queue.put([delivery("d1", "a")])
        await stage.until_empty()
        assert len(stage.poster.posts) == 1


@virtual_time
async def test_what_waits_for_an_endpoint_that_was_deleted_goes_with_it() -> None:
    async with running("a") as stage:
        await stage.put(delivery("d1", "gone", "call_1"), delivery("d2", "gone", "call_1"), delivery("d3", "a"))
        await stage.until_empty()
        assert [post.delivery_id for post in stage.poster.posts] == ["d3"]
        assert [attempt.delivery_id for attempt in stage.queue.log] == ["d3"]
