"""One lease per process in the store. It covers all calls of the process, and is renewed about every second.

A process that dies sends no message. Its successor with the same name ends those calls that cannot be resumed, with the
last renewal as the end time. Without a successor, another process with the same store does it, after two checks: the
lease was not renewed for a minute, and the callers are not in LiveKit any more. A process may only have lost the store
while its calls go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies
from connector.call.registry.abandoned import end_calls, open_calls, remove_ghosts
from connector.call.registry.dialled import OWNER
from connector.errors import ConnectorError
from connector.model.call import CallRecord
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

RENEW_EVERY = 1.0
ANNOUNCE_LIMIT = 2.0
"""Seconds for which the drain waits for the store."""
IDLE = 15.0
"""Seconds between renewals while the process holds no call."""
LAPSE = 60.0
"""Seconds without renewal before other processes end the owner's calls: it may only have lost the store."""
LOOK_EVERY = 10.0
MAX_GAP = 2.5 * LOOK_EVERY
"""Longest time in seconds between two observations that count together. After a longer gap (the store or this process
was stopped) the observation starts again."""
UNLEASED_MARGIN = 3600.0
"""Calls of an owner without a lease end so many seconds after the longest call duration: an earlier version wrote no
leases."""


class OwnerLease:
    """Renews the lease of this process, and watches those of others."""

    def __init__(
        self,
        parts: CallDependencies,
        holds_calls: Callable[[], bool],
        address: Callable[[], str] = lambda: "",
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """`address`: the URL at which this process answers the others, as far as it is known. `is_draining`: whether it
        is about to stop."""
        self._parts = parts
        self._holds_calls = holds_calls
        self._address = address
        self._is_draining = is_draining
        self._renewed = float("-inf")
        self._seen: dict[str, tuple[float, float]] = {}
        """By owner: the last renewal seen (Unix time), and when it was first seen (event loop time)."""
        self._cut_off: set[str] = set()
        """Owners that are alive but do not renew their lease; logged once."""
        self._looked = float("-inf")
        self._tidying = BackgroundTasks()

    async def take_up(self) -> list[CallRecord]:
        """At start: end the calls of an earlier process with this name, with its last renewal as the end time, and
        renew the lease. Return the records of those calls. Raises StoreError."""
        owner = self._parts.owner
        renewed_at = (await self._parts.store.leases()).get(owner)
        calls = await open_calls(self._parts, owner)
        ended = await end_calls(self._parts, calls, renewed_at)
        await self._parts.store.renew_lease(owner, time.time(), self._address())
        return ended

    async def renew(self) -> None:
        """To be called about every second. Raises StoreError."""
        now = asyncio.get_running_loop().time()
        if self._holds_calls() or now >= self._renewed + IDLE:
            await self._renew()

    async def announce_drain(self) -> None:
        """This process is about to stop: other processes that stop must not hand their calls over to it. A failure of
        the store is logged; the next renewal says it again."""
        try:
            async with asyncio.timeout(ANNOUNCE_LIMIT):
                await self._renew()
        except (ConnectorError, TimeoutError) as error:
            log.warning(
                "the drain of this process could not be saved in the store", error=str(error) or "no answer in time"
            )

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        await self._parts.store.renew_lease(self._parts.owner, time.time(), self._address(), self._is_draining())
        self._renewed = now

    async def give_up(self) -> None:
        """This process holds no call any more. Raises StoreError."""
        await self._parts.store.drop_lease(self._parts.owner)

    async def look(self) -> None:
        """End the calls of processes that are gone for good. To be called every `LOOK_EVERY`; raises StoreError."""
        leases = await self._parts.store.leases()
        now = asyncio.get_running_loop().time()
        if now > self._looked + MAX_GAP:
            self._seen.clear()
        self._looked = now
        seen, self._seen = self._seen, {}
        for owner, renewed_at in leases.items():
            before = seen.get(owner)
            since = before[1] if before is not None and before[0] == renewed_at else now
            self._seen[owner] = (renewed_at, since)
            if now < since + LAPSE:
                self._cut_off.discard(owner)
            if owner != self._parts.owner and now >= since + LAPSE:
                await self._end_all_of(owner, renewed_at)
        await self._end_unleased(leases.keys() | {OWNER, self._parts.owner})

    async def _end_all_of(self, owner: str, renewed_at: float) -> None:
        calls = await open_calls(self._parts, owner)
        try:
            dead = [call for call in calls if not await self._has_caller(call)]
        except (ConnectorError, TimeoutError) as error:
            log.warning("check of another process's calls failed", owner=owner, error=str(error))
            return
        ended = await end_calls(self._parts, dead, renewed_at)
        if ended:
            log.warning("a process has died: its calls were interrupted", owner=owner, calls=len(ended))
        self.tidy(ended)
        if len(dead) == len(calls):
            await self._parts.store.drop_lease(owner, renewed_at)
        elif owner not in self._cut_off:
            self._cut_off.add(owner)
            log.warning(
                "a process does not renew its lease, but its callers are still there: it is cut off from the store",
                owner=owner,
                calls=len(calls) - len(dead),
            )

    async def _has_caller(self, call: CallRecord) -> bool:
        """Whether LiveKit has the caller in its room. LiveKit removes the caller of a dead process long before the
        lease lapses. Raises ConnectorError and TimeoutError."""
        async with asyncio.timeout(STEP_TIMEOUT):
            return await self._parts.admin.has_call(call.room, call.identity, call.call_id)

    async def _end_unleased(self, known: set[str]) -> None:
        before = time.time() - self._parts.limits.max_duration - UNLEASED_MARGIN
        forgotten = [call for call in await open_calls(self._parts, created_before=before) if call.owner not in known]
        self.tidy(await end_calls(self._parts, forgotten, None))

    def tidy(self, ended: Sequence[CallRecord]) -> None:
        """See `connector.call.registry.abandoned.remove_ghosts`; in the background, since LiveKit may be away."""
        if ended:
            self._tidying.start(remove_ghosts(self._parts, ended), "remove the callers of dead processes")

    async def close(self) -> None:
        """Stop the clean-up, even if it is not complete."""
        await self._tidying.close()
