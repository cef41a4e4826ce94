"""How many callers join LiveKit at once, and who waits for a turn.

A join is a tenth of a second of work for this process and for livekit-server. Sixty that start together share the
processor, and all of them run into the time limit of a join; eight at a time, all sixty succeed. So joins take turns.
Where they take long all the same, because the machine has other work, fewer begin at once. The time
in the queue does not count against a join's own limit. A call that would wait too long is refused at once,
by an estimate from the joins of late, so that a busy connector says so while somebody still listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connector.errors import ResourceExhausted, Unavailable
from connector.metrics import Metrics

SLOT_LIMIT = 4.0
"""Seconds after which a join that hangs counts no more: the next one begins beside it."""
QUICK, SLOW = 1.0, 2.0
"""Seconds of a join below which one more may begin at once, and above which a quarter less. At twice the time it
fails."""
FEWEST = 2
"""Joins at a time, however long they take: LiveKit may only be far away."""
FIRST_GUESS = 0.3
"""Seconds that a join takes, before one has been measured."""
WEIGHT = 0.2
"""Of the latest join in the running mean."""
STREAM_DELAY = 5.0
"""Seconds after the answer document in which the carrier opens the stream of a call; later, nobody expects it now."""

_Queue = dict["asyncio.Future[object]", str]
"""Turns that are waited for, in order, and the call of each."""


class CallIsOver(Unavailable):
    """Whoever waits for a turn to join has no use for it any more."""


class JoinAdmission:
    """One for a process. Callers in the middle of a call go first; else it is first come, first served."""

    def __init__(self, most: int, patience: float, metrics: Metrics) -> None:
        """`most`: joins at a time; `patience`: seconds that a new call may wait for its turn."""
        self._most = self._at_once = most
        self._patience = patience
        self._metrics = metrics
        self._running: dict[object, float] = {}
        """When each join began."""
        self._live: _Queue = {}
        self._new: _Queue = {}
        self._expected: dict[str, float] = {}
        """Calls whose stream, and so their join, is about to come: until when it is expected."""
        self._seconds = FIRST_GUESS
        self._adapted_at = 0.0

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._live) + len(self._new)

    def expect(self, call_id: str) -> None:
        """A call is announced and joins when its stream starts. Raises ResourceExhausted when it would have to wait
        too long then; else its turn is sure."""
        self._require_turn()
        self._expected[call_id] = self._now() + STREAM_DELAY

    def forget(self, call_id: str) -> None:
        """The call is over. If it waits for its turn, it is told so by CallIsOver."""
        self._expected.pop(call_id, None)
        for queue in (self._live, self._new):
            for turn in [turn for turn, whose in queue.items() if whose == call_id and not turn.done()]:
                del queue[turn]
                turn.set_exception(CallIsOver("the call ended while it waited for its turn to join"))

    @asynccontextmanager
    async def new_call(self, call_id: str) -> AsyncIterator[None]:
        """A turn for a call that begins; the body joins. Raises ResourceExhausted, at once when it can be foreseen."""
        if self._expected.pop(call_id, 0.0) < self._now():
            self._require_turn()
        async with self._turn(self._new, call_id, self._patience):
            yield

    @asynccontextmanager
    async def streaming_call(self, call_id: str) -> AsyncIterator[None]:
        """A turn for a call whose stream has started. As for a new one; but a caller who was let in by `expect` is not
        turned away by an estimate, and waits twice as long when that was wrong."""
        patience = self._patience
        if self._expected.pop(call_id, 0.0) < self._now():
            self._require_turn()
        else:
            patience *= 2
        async with self._turn(self._new, call_id, patience):
            yield

    @asynccontextmanager
    async def live_call(self, call_id: str, patience: float = 0.0) -> AsyncIterator[None]:
        """A turn for a call that is under way: an answered phone, a move to another room, the way back to a LiveKit
        that has started again. Raises ResourceExhausted when none has come in `patience` seconds (0: as for new
        calls)."""
        async with self._turn(self._live, call_id, patience or self._patience):
            yield

    def foreseen_wait(self) -> float:
        """Seconds that one more call would wait for its turn, as it looks now."""
        now = self._now()
        self._expected = {call_id: until for call_id, until in self._expected.items() if until >= now}
        over = len(self._running) + self.waiting + len(self._expected) + 1 - self._at_once
        if over <= 0:
            return 0.0
        # A join that hangs enters the mean only when it is over.
        age = sum(now - began for began in self._running.values()) / max(1, len(self._running))
        return over * max(self._seconds, age) / self._at_once

    def _require_turn(self) -> None:
        wait = self.foreseen_wait()
        if wait > self._patience:
            self._refuse(f"this one would wait about {wait:.0f} s for its turn to join")

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
            # A caller has hung up: that is no measure of the time that a join takes.
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
                self._free(turn.result())  # Granted in the moment in which it was given up.
            if isinstance(error, TimeoutError):
                self._refuse(f"no turn to join came in {patience:g} s")
            raise

    def _begin(self) -> object:
        """Counted at once, not when the task of the one who waits runs again: else too many would begin."""
        join = object()
        self._running[join] = self._now()
        return join

    def _measure(self, join: object) -> None:
        """A join is over, or hangs."""
        if join in self._running:
            began = self._running[join]
            seconds = self._now() - began
            self._seconds += WEIGHT * (seconds - self._seconds)
            if began >= self._adapted_at:
                self._adapt(seconds)
            self._free(join)

    def _adapt(self, seconds: float) -> None:
        """Once for the joins that were under way together: those tell of the number that is changed now."""
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
