"""Hangs phones up through their carriers' REST APIs: at once, with retries until the carrier has done it.

A carrier may keep a phone on a silent, billed line for a day if nobody hangs it up. So each hang-up is written to the
store before its first try. After a failure (a 503 of the carrier, a broken network, a killed process) any running
process retries it, for `GIVE_UP_AFTER` seconds. If the store fails too, this process keeps the hang-up in memory.

If the carrier itself closed the stream, it may just go on with its document and ask for the next one. Then the hang-up
waits for `RETURN_GRACE` seconds, and a request of the same carrier call, at any process, withdraws it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import structlog

from connector.call.ports import CarrierControl
from connector.carriers.carrier import Carriers
from connector.chores import DueWork
from connector.errors import ConnectorError, FailedPrecondition, NotFound
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model.call import CarrierCall, HangUp
from connector.model.provider import Provider
from connector.storage.base import HangUpQueue
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

_Refusal = ConnectorError | None
"""The carrier's error for a failed try; None if there was none."""

GIVE_UP_AFTER = 900.0
"""Seconds after which a hang-up is tried for the last time."""
RETURN_GRACE = 2.0
"""Seconds in which a carrier that has closed the stream may come back with the phone."""
WITHDRAWN_FOR = 2 * 86400.0
"""Seconds for which the store remembers a withdrawal: a process without connection to the store may write the hang-up
late."""
FIRST_DELAY = 1.0
MAX_DELAY = 30.0
PATIENCE = 5.5
"""Seconds for which the end of a call waits for the store and the first try. After that the try continues in the
background."""
KEEP_PATIENCE = 2.0
"""Seconds for the store to accept a hang-up; after that it is tried anyway."""
TRY_LIMIT = 45.0
"""Seconds for one try: it may take several requests to the carrier, and the time for a spoken sentence."""
LEASE = 50.0
"""Seconds for which this process owns a hang-up. If it dies, another process takes the hang-up over after that time."""
MAX_AT_ONCE = 32
LOOK_AGAIN = 5.0
"""Longest time in seconds between two queries of the store: another process may have died and left hang-ups."""
STOP_PATIENCE = 6.0
"""Seconds for running tries to finish when the process stops."""
_SOON = 0.05


def delay(attempts: int, chance: float) -> float:
    """Seconds from try number `attempts` (the first is 1) to the next one. Doubles each time; up to half is subtracted
    at random (`chance` from 0 to 1), so that tries that failed together are not repeated together."""
    return float(min(FIRST_DELAY * 2 ** min(attempts - 1, 30), MAX_DELAY)) * (1 - chance / 2)


class HangUps:
    """`hang_up` works without `start`. `start` begins the retries of failed hang-ups and of those that a dead process
    left."""

    def __init__(
        self,
        queue: HangUpQueue,
        carriers: Carriers,
        control: Mapping[Provider, CarrierControl],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`clock` tells Unix time."""
        self._queue = queue
        self._carriers = carriers
        self._control = control
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._unkept: dict[str, tuple[HangUp, float]] = {}
        """Hang-ups that the store did not accept, with the time of the next try."""
        self._tries = BackgroundTasks()
        self._due = DueWork("hang-ups", self._launch_due)

    async def start(self) -> None:
        self._due.start()

    async def stop(self) -> None:
        """Let running tries finish. The remaining hang-ups are in the store, for the next process."""
        await self._due.stop()
        for hang_up, _ in list(self._unkept.values()):
            self._launch(hang_up, self._try_unkept(hang_up))
        await self._tries.close(STOP_PATIENCE)
        for hang_up, _ in self._unkept.values():
            log.error("a phone is not hung up: carrier and store fail", call_id=hang_up.call_id, **_named(hang_up))
        with contextlib.suppress(ConnectorError):
            if left := await self._queue.pending():
                log.warning("phones wait for the next process to hang them up", phones=left)

    async def keep(self, call_id: str, provider: Provider, call: CarrierCall) -> None:
        """Store a hang-up; it is tried as soon as `start` was called. Raises StoreError."""
        if await self._queue.put(self._new(call_id, provider, call, ""), self._clock()):
            self._due.wake()

    async def hang_up(
        self, call_id: str, provider: Provider, call: CarrierCall, say: str = ""
    ) -> ConnectorError | None:
        """Hang a phone up, after the sentence `say` if given. Returns when the carrier has answered, or after PATIENCE
        seconds. Returns the carrier's error if the first try failed. Raises nothing, since failures are retried."""
        hang_up = self._new(call_id, provider, call, say)
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        if await self._put(hang_up, LEASE):
            trying = self._launch(hang_up, self._try(hang_up))
            await asyncio.wait([trying], timeout=until - loop.time())
            if trying.done() and not trying.cancelled() and trying.exception() is None:
                return trying.result()
        return None

    async def make_sure(self, call_id: str, provider: Provider, call: CarrierCall) -> None:
        """Hang a phone up after its carrier has ended the stream, unless the carrier asks for a new document for it
        within `RETURN_GRACE` seconds. Raises nothing."""
        if await self._put(self._new(call_id, provider, call, ""), RETURN_GRACE):
            self._due.wake()

    async def withdraw(self, call_id: str) -> None:
        """The carrier asks for the next instructions for the phone of this call: withdraw its hang-up, and ignore later
        ones, from any process. Raises StoreError."""
        self._unkept.pop(call_id, None)
        now = self._clock()
        await self._queue.withdraw(call_id, now, now + WITHDRAWN_FOR)

    async def allow(self, call_id: str) -> None:
        """Undo `withdraw`: the phone has stayed where it was. Raises StoreError."""
        await self._queue.allow(call_id)

    async def _put(self, hang_up: HangUp, seconds: float) -> bool:
        """Write a hang-up to the store; return whether this process owns it for `seconds`. False if it was withdrawn,
        or if another process works on it."""
        try:
            async with asyncio.timeout(KEEP_PATIENCE):
                return await self._queue.put(hang_up, self._clock() + seconds)
        except (ConnectorError, TimeoutError) as error:
            log.warning("a hang-up could not be written into the store", error=str(error) or "no answer in time")
            self._unkept[hang_up.id] = (hang_up, self._clock() + seconds)
            return True

    def _new(self, call_id: str, provider: Provider, call: CarrierCall, say: str) -> HangUp:
        return HangUp(
            id=call_id,
            call_id=call_id,
            provider=provider,
            call=call,
            created_at=self._clock(),
            say=say,
        )

    # What is due

    async def _launch_due(self) -> float:
        """Start the hang-ups that are due; return the seconds until the next check, unless woken before."""
        now = self._clock()
        for hang_up, at in list(self._unkept.values()):
            if at <= now:
                self._unkept[hang_up.id] = (hang_up, now + LEASE)
                self._launch(hang_up, self._try_unkept(hang_up))
        while len(self._tries) < MAX_AT_ONCE and not self._due.is_stopping:
            due = await self._queue.next_due()
            now = self._clock()
            if due is None or due > now:
                break
            for hang_up in await self._queue.take(now, now + LEASE, 1):
                self._launch(hang_up, self._try(hang_up))
        else:
            due = None
        self._metrics.hang_ups_pending.set(await self._queue.pending() + len(self._unkept))
        times = [at for at in (due, *(at for _, at in self._unkept.values())) if at is not None]
        return min(max(min(times, default=now + LOOK_AGAIN) - self._clock(), _SOON), LOOK_AGAIN)

    def _launch(self, hang_up: HangUp, work: Coroutine[Any, Any, _Refusal]) -> asyncio.Task[_Refusal]:
        # Runs as a task, so that a try is completed even if the teardown ends or stops waiting.
        with bind_call(hang_up.call_id):
            return self._tries.start(work, "hang up a phone", self._due.wake)

    async def _try_unkept(self, hang_up: HangUp) -> _Refusal:
        """Try a hang-up from memory. If the store is back, write it there first; the store knows whether it was
        withdrawn."""
        try:
            async with asyncio.timeout(KEEP_PATIENCE):
                is_ours = await self._queue.put(hang_up, self._clock() + LEASE)
        except (ConnectorError, TimeoutError):
            pass  # The store still fails: try the hang-up anyway.
        except Exception:
            log.exception("a hang-up could not be written into the store")
        else:
            self._unkept.pop(hang_up.id, None)
            if not is_ours:
                return None
        return await self._try(hang_up)

    async def _try(self, hang_up: HangUp) -> _Refusal:
        try:
            return await self._attempt(replace(hang_up, attempts=hang_up.attempts + 1))
        except ConnectorError as error:
            # The lease expires and the hang-up is tried again; the carrier then answers that the call is over.
            log.warning("the result of a hang-up could not be written into the store", error=error.message)
            return None

    async def _attempt(self, hang_up: HangUp) -> _Refusal:
        """`hang_up.attempts` includes this try."""
        error = ""
        refusal: _Refusal = None
        try:
            async with asyncio.timeout(TRY_LIMIT):
                await self._control_of(hang_up.provider).hang_up(hang_up.call, hang_up.say)
        except NotFound as unknown:
            # A retry would get the same answer; perhaps the operator has configured a wrong account.
            log.warning("the carrier does not know the call that is to be hung up", error=unknown.message)
            refusal = unknown
        except ConnectorError as failure:
            error, refusal = failure.message, failure
        except TimeoutError:
            error = "no answer in time"
        except Exception as failure:
            log.exception("a hang-up failed with an unexpected error")
            error = repr(failure)
        if not error:
            self._metrics.hang_ups.labels(hang_up.provider.value, "done").inc()
            if hang_up.attempts > 1:
                log.info("phone hung up", attempts=hang_up.attempts)
            await self._settle(hang_up)
        elif self._clock() >= hang_up.created_at + GIVE_UP_AFTER:
            self._metrics.hang_ups.labels(hang_up.provider.value, "given_up").inc()
            log.error("phone not hung up, given up", error=error, attempts=hang_up.attempts, **_named(hang_up))
            await self._settle(hang_up)
        else:
            self._metrics.hang_ups.labels(hang_up.provider.value, "failed").inc()
            await self._again(hang_up, error)
        return refusal

    def _control_of(self, provider: Provider) -> CarrierControl:
        control = self._control.get(provider)
        if control is None:
            raise FailedPrecondition(f"hanging up needs {self._carriers[provider].rest_settings}")
        return control

    async def _settle(self, hang_up: HangUp) -> None:
        self._unkept.pop(hang_up.id, None)
        await self._queue.settle(hang_up.id)

    async def _again(self, hang_up: HangUp, error: str) -> None:
        now = self._clock()
        at = min(now + delay(hang_up.attempts, self._chance()), hang_up.created_at + GIVE_UP_AFTER)
        write = log.warning if hang_up.attempts == 1 else log.info
        write("phone not hung up yet", error=error, attempts=hang_up.attempts, again_in=round(at - now, 1))
        if hang_up.id in self._unkept:
            self._unkept[hang_up.id] = (hang_up, at)
        else:
            await self._queue.retry(hang_up.id, at, hang_up.attempts)


def _named(hang_up: HangUp) -> dict[str, str]:
    """Log fields with which an operator can find the call in the carrier's console."""
    return {"carrier": hang_up.provider.value, "carrier_call_id": hang_up.call.id}
