"""Sends the deliveries in the store: in order for each call and endpoint, with retries for a day."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import structlog

from connector.chores import DueWork
from connector.errors import ConnectorError
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model.webhook import Attempt, Delivery
from connector.tasks import BackgroundTasks
from connector.webhooks.post import TIME_OUT, Outcome, Poster
from connector.webhooks.protocols import Endpoints, Queue
from connector.webhooks.signing import KeyRing

log = structlog.get_logger()

DELIVERY_ID = "videosdk-delivery-id"
GIVE_UP_AFTER = 24 * 3600.0
"""Seconds after which a delivery has its last attempt."""
FIRST_DELAY = 1.0
MAX_DELAY = 900.0
LEASE = 2 * TIME_OUT
"""Seconds for which a process owns a delivery. If the process dies, others can take it after this time."""
MAX_AT_ONCE = 128
MAX_AT_ONCE_EACH = 4
"""Concurrent deliveries to one endpoint. A failing endpoint gets one at a time until a delivery succeeds."""
LOOK_AGAIN = 5.0
"""Seconds after which the store is polled without a wake-up: another process may have died and left deliveries."""
STOP_PATIENCE = 5.0
"""Seconds for running deliveries to finish when the process stops."""
_SOON = 0.05


def delay(attempt: int, chance: float) -> float:
    """Seconds from attempt number `attempt` (the first is 1) to the next: it doubles each time. Jitter (`chance`
    from 0 to 1) takes off up to half of it, so that deliveries that failed together are not retried together."""
    return float(min(FIRST_DELAY * 2 ** min(attempt - 1, 30), MAX_DELAY)) * (1 - chance / 2)


def next_attempt(delivery: Delivery, now: float, chance: float) -> float | None:
    """Time of the next attempt after a failure at `now`; None to give up. The last attempt is at the end of the day."""
    last = delivery.created_at + GIVE_UP_AFTER
    if now >= last:
        return None
    return min(now + delay(delivery.attempts + 1, chance), last)


class Sender:
    """Sends due deliveries. Several processes share the queue; a lease ensures that only one sends a delivery. Call
    `wake` after a `put`; the sender finds retries and leftovers by itself."""

    def __init__(
        self,
        queue: Queue,
        endpoints: Endpoints,
        keys: KeyRing,
        poster: Poster,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._endpoints = endpoints
        self._keys = keys
        self._poster = poster
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._due = DueWork("webhooks", self._send_due)
        self._tasks = BackgroundTasks()
        self._in_flight: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._count_at = 0.0

    async def start(self) -> None:
        await self._poster.open()
        self._due.start()

    async def stop(self) -> None:
        """Take no more deliveries and let running ones finish. Those that do not are retried after their lease."""
        await self._due.stop()
        await self._tasks.close(STOP_PATIENCE)
        await self._poster.close()

    def wake(self) -> None:
        self._due.wake()

    async def _send_due(self) -> float:
        """Start the due deliveries. Returns the seconds to sleep, unless `wake` is called earlier."""
        while len(self._tasks) < MAX_AT_ONCE and not self._due.is_stopping:
            now = self._clock()
            taken = await self._queue.take(now, now + LEASE, 1, self._busy())
            for delivery in taken:
                self._launch(delivery)
            if not taken:
                due = await self._queue.next_due(self._busy())
                await self._count()
                return LOOK_AGAIN if due is None else min(max(due - self._clock(), _SOON), LOOK_AGAIN)
        return LOOK_AGAIN

    async def _count(self) -> None:
        """Update the metric at most every `LOOK_AGAIN` seconds, to spare the store."""
        if self._clock() >= self._count_at:
            self._count_at = self._clock() + LOOK_AGAIN
            self._metrics.webhooks_pending.set(await self._queue.pending())

    def _busy(self) -> list[str]:
        return [
            endpoint_id
            for endpoint_id, count in self._in_flight.items()
            if count >= (1 if endpoint_id in self._failing else MAX_AT_ONCE_EACH)
        ]

    def _launch(self, delivery: Delivery) -> None:
        self._in_flight[delivery.endpoint_id] += 1

        def done() -> None:
            self._in_flight[delivery.endpoint_id] -= 1
            if not self._in_flight[delivery.endpoint_id]:
                del self._in_flight[delivery.endpoint_id]
            self.wake()

        with bind_call(
            delivery.call_id, endpoint=delivery.endpoint_id, delivery=delivery.id, webhook=delivery.event.value
        ):
            self._tasks.start(self._deliver(delivery), "deliver a webhook", done)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except ConnectorError as error:
            # The lease expires and the delivery is retried: at worst it is delivered twice.
            log.warning("the result of a webhook delivery could not be saved", error=error.message)

    async def _attempt(self, delivery: Delivery) -> None:
        endpoint = await self._endpoints.get(delivery.endpoint_id)
        if endpoint is None:
            self._failing.discard(delivery.endpoint_id)
            await self._queue.drop_endpoint(delivery.endpoint_id)
            log.info("webhook deleted: its pending deliveries are dropped")
            return
        body = delivery.body.encode()
        headers = await self._keys.headers(body)
        at, started = self._clock(), time.monotonic()
        outcome = await self._poster.post(endpoint.url, body, {**headers, DELIVERY_ID: delivery.id})
        attempt = Attempt(
            delivery_id=delivery.id,
            endpoint_id=delivery.endpoint_id,
            call_id=delivery.call_id,
            event=delivery.event,
            number=delivery.attempts + 1,
            at=at,
            seconds=round(time.monotonic() - started, 3),
            status=outcome.status,
            error=outcome.error,
        )
        retry_at = None if outcome.delivered else next_attempt(delivery, self._clock(), self._chance())
        await self._queue.settle(attempt, retry_at)
        self._note(attempt, outcome, retry_at)

    def _note(self, attempt: Attempt, outcome: Outcome, retry_at: float | None) -> None:
        if outcome.delivered:
            self._failing.discard(attempt.endpoint_id)
        else:
            self._failing.add(attempt.endpoint_id)
        words = {"attempt": attempt.number, "status": attempt.status or None, "seconds": attempt.seconds}
        if outcome.delivered:
            self._metrics.webhooks.labels("delivered").inc()
            log.info("webhook delivered", **words)
        elif retry_at is None:
            self._metrics.webhooks.labels("given_up").inc()
            log.error("webhook given up after a day", error=outcome.error, **words)
        else:
            self._metrics.webhooks.labels("failed").inc()
            write = log.warning if attempt.number == 1 else log.info
            again = round(retry_at - self._clock(), 1)
            write("webhook not delivered", error=outcome.error, again_in=again, **words)
