"""Limits how many callers join LiveKit at the same time; the others wait in a queue.

A join is a tenth of a second of work for this process and for livekit-server. If sixty start together they share the
processor, and all of them exceed the time limit of a join; with eight at a time, all sixty succeed. If joins are still
slow, because the machine has other work, fewer start at the same time. The time in the queue does not count against a
join's own limit. A call that would wait too long, as estimated from recent joins, is refused at once, so that the
client gets the answer while it still waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connector.errors import ResourceExhausted, Unavailable
from connector.metrics import Metrics

SLOT_LIMIT = 4.0
"""Seconds after which a join that hangs frees its slot for the next one."""
QUICK, SLOW = 1.0, 2.0
"""Duration of a join in seconds. Below QUICK, the number of parallel joins grows by one; above SLOW, it shrinks by a
quarter. At about twice SLOW a join fails."""
FEWEST = 2
"""Minimum number of parallel joins, even if they are slow: LiveKit may only be far away."""
FIRST_GUESS = 0.3
"""Assumed duration of a join in seconds, until one has been measured."""
WEIGHT = 0.2
"""Weight of the latest join in the running mean."""
STREAM_PATIENCE = 3
"""A call that was accepted may wait so many times as long once its phone streams: a refusal at that point hangs up an
answered phone, and sixty calls at once need up to 15 s on two cores."""
STREAM_DELAY = 5.0
"""Seconds after the answer document in which the carrier should open the stream. After that no turn is reserved."""

_Queue = dict["asyncio.Future[object]", str]
"""Waiting turns, in order, each with its call id."""


class CallIsOver(Unavailable):
    """The call ended while it waited for its turn to join."""


class JoinAdmission:
    """One per process. Calls in progress go first; otherwise first come, first served."""

    def __init__(self, most: int, patience: float, metrics: Metrics) -> None:
        """`most`: maximum number of parallel joins; `patience`: seconds that a new call may wait for its turn."""
        self._most = self._at_once = most
        self._patience = patience
        self._metrics = metrics
        self._running: dict[object, float] = {}
        """Start time of each running join."""
        self._live: _Queue = {}
        self._new: _Queue = {}
        self._expected: dict[str, float] = {}
        """Calls that will join soon, when their stream starts: latest expected time of the stream."""
        self._seconds = FIRST_GUESS
        self._adapted_at = 0.0

    @property
    def waiting(self) -> int:
        """Number of calls that wait for their turn."""
        return len(self._live) + len(self._new)

    def expect(self, call_id: str) -> None:
        """Announce a call that will join when its stream starts. Raises ResourceExhausted if it would then have to wait
        too long; otherwise it will get a turn."""
        self._require_turn()
        self._expected[call_id] = self._now() + STREAM_DELAY

    def forget(self, call_id: str) -> None:
        """The call has ended. If it waits for its turn, the wait raises CallIsOver."""
        self._expected.pop(call_id, None)
        for queue in (self._live, self._new):
            for turn in [turn for turn, whose in queue.items() if whose == call_id and not turn.done()]:
                del queue[turn]
                turn.set_exception(CallIsOver("the call ended while it waited for its turn to join"))

    @asynccontextmanager
    async def new_call(self, call_id: str) -> AsyncIterator[None]:
        """A turn for a new call; the join happens in the body. Raises ResourceExhausted, at once if the estimate shows
        that the wait is too long."""
        if self._expected.pop(call_id, 0.0) < self._now():
            self._require_turn()
        async with self._turn(self._new, call_id, self._patience):
            yield

    @asynccontextmanager
    async def streaming_call(self, call_id: str) -> AsyncIterator[None]:
        """A turn for a call after its stream has started. As `new_call`, but a call that `expect` has accepted is not
        refused by an estimate, and may wait STREAM_PATIENCE times as long."""
        patience = self._patience
        if self._expected.pop(call_id, 0.0) < self._now():
            self._require_turn()
        else:
            patience *= STREAM_PATIENCE
        async with self._turn(self._new, call_id, patience):
            yield

    @asynccontextmanager
    async def live_call(self, call_id: str, patience: float = 0.0) -> AsyncIterator[None]:
        """A turn for a call in progress: an answered phone, a move to another room, a new join after a restart of
        LiveKit. Raises ResourceExhausted after `patience` seconds without a turn (0: as for new calls)."""
        async with self._turn(self._live, call_id, patience or self._patience):
            yield

    def foreseen_wait(self) -> float:
        """Estimated seconds that one more call would wait for its turn."""
        now = self._now()
        self._expected = {call_id: until for call_id, until in self._expected.items() if until >= now}
        over = len(self._running) + self.waiting + len(self._expected) + 1 - self._at_once
        if over <= 0:
            return 0.0
        # A join that hangs is not yet part of the mean, so the age of the running joins counts as well.
        age = sum(now - began for began in self._running.values()) / max(1, len(self._running))
        return over * max(self._seconds, age) / self._at_once

    def _require_turn(self) -> None:
        wait = self.foreseen_wait()
        if wait > self._patience:
            self._refuse(f"this call would wait about {wait:.0f} s for its turn to join")

    def _refuse(self, why: str) -> None:
        self._metrics.refused.labels("join", "busy").inc()
        raise ResourceExhausted(f"too many calls begin at once: {why}")

    @asynccontextmanager
    async def _turn(self, queue: _Queue, call_id: str, patience: float) -> AsyncIterator[None]:
        join = await self._granted(queue, call_id, patience)
        hung = asyncio.get_running_loop().call_later(SLOT_LIMIT, self._measure, join)
        try:
            yield
        except asyncio.CancelledError:
            # The caller has hung up: this join must not change the measured duration.
            self._free(join)
            raise
        finally:
            hung.cancel()
            self._measure(join)

    async def _granted(self, queue: _Queue, call_id: str, patience: float) -> object:
        if not self.waiting and len(self._running) < self._at_once:
            return self._begin()
        turn: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        queue[turn] = call_id
        try:
            async with asyncio.timeout(patience):
                return await turn
        except BaseException as error:
            is_queued = queue.pop(turn, None) is not None
            if not is_queued and not turn.cancelled() and turn.exception() is None:
                self._free(turn.result())  # The turn was granted just when the wait was given up.
            if isinstance(error, TimeoutError):
                self._refuse(f"no turn to join came in {patience:g} s")
            raise

    def _begin(self) -> object:
        """Count a join at once, not later when the waiting task runs: otherwise too many would start."""
        join = object()
        self._running[join] = self._now()
        return join

    def _measure(self, join: object) -> None:
        """A join has ended, or hangs."""
        if join in self._running:
            began = self._running[join]
            seconds = self._now() - began
            self._seconds += WEIGHT * (seconds - self._seconds)
            if began >= self._adapted_at:
                self._adapt(seconds)
            self._free(join)

    def _adapt(self, seconds: float) -> None:
        """Change the number of parallel joins, once for all joins that ran at the same time: they were all measured
        with the old number."""
        before = self._at_once
        if seconds > SLOW:
            self._at_once = max(min(FEWEST, self._most), self._at_once * 3 // 4)
        elif seconds < QUICK:
            self._at_once = min(self._most, self._at_once + 1)
        if self._at_once != before:
            self._adapted_at = self._now()

    def _free(self, join: object) -> None:
        if self._running.pop(join, None) is None:
            return
        while self.waiting and len(self._running) < self._at_once:
            queue = self._live or self._new
            turn = next(iter(queue))
            del queue[turn]
            if not turn.done():
                turn.set_result(self._begin())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
