"""Resumes calls that have lost their stream or their process, or ends them if no stream comes.

A carrier that comes back by itself may reach any process (`resume`, `until_lost`). Each process also looks for calls
whose owner is gone (`look`): it marks their entry as waiting for the next stream, and ends them if no stream comes.
Each step is a compare-and-set of the call's entry in `store.waiting`, so of several processes exactly one takes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import structlog

from connector.call.dependencies import CARRIER_ENDS, STEP_TIMEOUT, CallDependencies
from connector.call.ports import Peers
from connector.call.registry.abandoned import INTERRUPTED_DETAIL, end_calls, remove_ghosts
from connector.call.registry.live_calls import LiveCalls
from connector.call.registry.owners import LEASE_LAPSE, OwnerWatch
from connector.call.session.call_session import CallSession
from connector.call.session.returns import (
    CALL_IS_OVER,
    MOST_RETURNS,
    NOT_OF_THIS_ACCOUNT,
    RETURNS_WITHIN,
    Resume,
    ResumeVerdict,
    Step,
    are_too_many,
    counted,
    decide,
)
from connector.call.session.wait import USED_ELSEWHERE
from connector.errors import CarrierCallOver, ConnectorError, NotFound, TokenInvalid, TokenUsed
from connector.logs import bind_call
from connector.model.call import CallRecord, CarrierCall, WaitingCall
from connector.model.end_reason import EndReason
from connector.storage.base import NameTaken, StoreError
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

LOOK_AGAIN = 0.2
BRING_BACK_AGAIN = (1.0, 3.0)
"""Pauses in seconds between the requests to a carrier that does not answer."""
TAKE_OVER_TIME = 2.0
"""Seconds for which a call may have no entry: while a process takes it over, or before its stream is active."""
HOLD = LEASE_LAPSE + 1.0
"""Seconds for which the handshake of a second socket waits until the owner of the first one is known to be gone."""
ASK_PATIENCE = 0.3
"""Seconds for which `look` waits for the answers of silent processes. The machine of a dead process refuses at once."""
ASK_AGAIN = 0.5
"""Minimum seconds between two requests to one process, because of carriers that poll."""
LONGEST_WAIT = 15.0
"""Minimum seconds for which a call without a process waits for its carrier: longer than the interval of a carrier that
polls."""


class Resumes:
    """See the module."""

    def __init__(self, parts: CallDependencies, calls: LiveCalls, peers: Peers | None = None) -> None:
        self._parts = parts
        self._calls = calls
        self._peers = peers
        self._grace = parts.limits.resume_grace
        self._owners = OwnerWatch()
        self._loop = asyncio.get_running_loop
        self._background = BackgroundTasks()
        self._asked: dict[str, asyncio.Task[None]] = {}
        """By owner: the request that checks whether it lives, until it is answered."""
        self._asked_at: dict[str, float] = {}
        """By owner: when it was last asked because of a carrier that polls, by the event loop's clock."""

    async def close(self) -> None:
        await self._background.close()

    def is_gone(self, entry: WaitingCall) -> bool:
        """Whether the process that owns the call is gone. A predecessor with our own name is."""
        if entry.owner == self._parts.owner:
            return self._calls.get(entry.id) is None
        return self._owners.is_gone(self._loop().time(), entry.owner, entry)

    # A carrier comes

    async def resume(self, call_id: str, stream: int, *, carrier_let_go: bool) -> Resume:
        """See `CallManager.resume`, for a call that this process does not hold."""
        waits_until = self._loop().time() + TAKE_OVER_TIME
        while True:
            entry = await self._parts.store.waiting.get(call_id)
            record = await self._parts.store.get_call(call_id)
            if entry is None and record is None:
                raise TokenInvalid("no such call")
            if record is not None and record.end_reason is not None:
                return Resume(ResumeVerdict.OVER, 0, 0.0, entry.request if entry else None)
            if entry is not None:
                if entry.served and not carrier_let_go:
                    await self._ask_now(entry.owner)
                answer = await self._answer(entry, stream, carrier_let_go=carrier_let_go)
                if answer is not None:
                    return answer
            elif self._loop().time() >= waits_until:
                if not carrier_let_go:
                    return Resume(ResumeVerdict.LIVES, 0, 0.0, None)
                raise StoreError("the store does not know yet how the call goes on")
            await asyncio.sleep(LOOK_AGAIN)

    async def _answer(self, entry: WaitingCall, ended: int, *, carrier_let_go: bool) -> Resume | None:
        """None: the entry has changed in the meantime."""
        over = Resume(ResumeVerdict.OVER, 0, 0.0, entry.request)
        if entry.stream == 1:
            known = ended == entry.stream
            return (
                replace(over, verdict=ResumeVerdict.STREAM, stream=ended, deadline=entry.expires_at) if known else over
            )
        now = time.time()
        step = decide(
            ended,
            entry.stream,
            served=entry.served,
            claimed=False,
            is_certain=carrier_let_go or self.is_gone(entry),
            in_transfer=entry.transfer is not None,
            since_return=now - (entry.returns[-1] if entry.returns else 0.0),
        )
        match step:
            case Step.OVER:
                return over
            case Step.LIVES:
                return replace(over, verdict=ResumeVerdict.LIVES)
            case Step.REPEAT:
                return replace(over, verdict=ResumeVerdict.STREAM, stream=ended + 1, deadline=now + self._grace)
            case Step.ANSWER if entry.expires_at > now:
                return replace(over, verdict=ResumeVerdict.STREAM, stream=entry.stream, deadline=entry.expires_at)
            case Step.ANSWER:
                returns = entry.returns
            case Step.OPEN:
                returns = counted(entry.returns, now)
        if are_too_many(returns):
            return over if await self._end(entry, EndReason.INTERRUPTED, _too_many(returns), now) else None
        opened = replace(entry, served=False, expires_at=now + self._grace, returns=returns)
        if not await self._parts.store.waiting.replace(opened, entry):
            return None
        log.info("a call of another process has lost its stream and waits for the next one", owner=entry.owner)
        return replace(over, verdict=ResumeVerdict.STREAM, stream=opened.stream, deadline=opened.expires_at)

    async def until_lost(self, entry: WaitingCall) -> bool:
        """A socket came with the token of the stream that the owner of `entry` serves. Wait until that stream is known
        to be lost; return whether its owner is gone. Raises TokenUsed if the stream lives."""
        until = self._loop().time() + HOLD
        present: WaitingCall | None = entry
        while present is not None and present.stream == entry.stream:
            if self.is_gone(present):
                return True
            if not present.served:
                return False
            if self._loop().time() >= until:
                break
            await asyncio.sleep(LOOK_AGAIN)
            present = await self._parts.store.waiting.get(entry.id)
        raise TokenUsed(USED_ELSEWHERE)

    def lost(self, entry: WaitingCall) -> WaitingCall:
        """The entry of a call that is taken over while it is marked as served: its stream is lost now."""
        if not entry.served:
            return entry
        return replace(entry, served=False, returns=counted(entry.returns, self._lost_at(entry)))

    def _lost_at(self, entry: WaitingCall) -> float:
        """Unix time of the owner's last renewal, or now if that is not known."""
        renewed_at = self._owners.last_renewal(entry.owner)
        now = time.time()
        return renewed_at if now - 2 * LONGEST_WAIT < renewed_at < now else now

    # Owners that are gone

    async def look(self) -> None:
        """Look for calls whose owner is gone, and for calls of ours that another process has taken. To be called every
        `owners.LOOK_EVERY`; raises StoreError."""
        if not self._grace:
            return
        try:
            entries = await self._parts.store.waiting.list()
            leases = await self._parts.store.leases()
        except ConnectorError:
            self._owners.start_again()
            raise
        # A call that has been claimed once: it is active, or was about to be.
        active = [entry for entry in entries if entry.stream > 1 and entry.transfer is None]
        self._owners.observe(self._loop().time(), leases, active)
        await self._ask_silent_owners(active)
        for entry in active:
            with bind_call(entry.id):
                try:
                    await self._look_at(entry)
                except ConnectorError:
                    raise
                except Exception:
                    # One call that cannot be checked must not delay the others.
                    log.exception("call of a dead process could not be checked")
        by_id = {entry.id: entry for entry in entries}
        for call in self._calls.all():
            call.wait.seen(by_id.get(call.call_id))

    async def hand_over(self, calls: Sequence[CallSession]) -> None:
        """This process stops: leave these calls to other processes, and wait until they have claimed them, or until the
        time is over."""
        patience = max(2 * self._grace, LONGEST_WAIT)
        handed = [call for call in calls if call.hand_over(patience)]
        for call in handed:
            control = self._parts.control.get(call.request.provider)
            if control is not None and control.stream_outlives_transfer:
                # This carrier does not react to the end of the socket.
                self._background.start(self._bring_back(call.wait.entry()), f"bring back {call.call_id}")
        if handed:
            log.info("calls are handed over to another process", calls=len(handed))
            overs = [asyncio.ensure_future(call.finished.wait()) for call in handed]
            await asyncio.wait(overs, timeout=patience)
            for over in overs:
                over.cancel()

    async def has_others(self) -> bool:
        """Whether another process shares the store, and calls can be left to it. Processes that are about to stop do
        not count: calls would go from one to the next. Their leases say so, and they themselves: of two that begin to
        stop at the same moment, one may have read the leases before the other has written its own."""
        if not self._grace:
            return False
        others = self._owners.others(self._loop().time(), self._parts.owner)
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                stopping = await self._parts.store.draining()
        except (ConnectorError, TimeoutError) as error:
            log.warning("the store could not be asked which processes drain", error=str(error) or "no answer")
            stopping = set()
        others = [owner for owner in others if owner not in stopping]
        if self._peers is None:
            return bool(others)
        return any(await asyncio.gather(*(self._peers.takes_calls(owner) for owner in others)))

    async def leaves_waiting_calls(self) -> bool:
        """Whether this process, while it drains, leaves calls that wait for their first stream to other processes.
        Without the grace it does not watch the others, and so always leaves them."""
        return not self._grace or await self.has_others()

    async def _ask_silent_owners(self, entries: Sequence[WaitingCall]) -> None:
        """A dead process is known sooner than by its lease: its address refuses connections. A frozen process, or a
        machine without power, does not answer at all. It must not delay `look`, which observes the leases."""
        if self._peers is None:
            return
        me, now = self._parts.owner, self._loop().time()
        silent = {entry.owner for entry in entries if entry.owner != me and self._owners.is_late(now, entry.owner)}
        for owner in silent - self._asked.keys():
            self._asked[owner] = self._background.start(
                self._ask(self._peers, owner), f"ask whether {owner} lives", partial(self._asked.pop, owner, None)
            )
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=ASK_PATIENCE)

    async def _ask_now(self, owner: str) -> None:
        """A carrier that polls asks about a call of this process: if that has just died, do not let it come again."""
        now = self._loop().time()
        if self._peers is None or owner == self._parts.owner or now < self._asked_at.get(owner, -ASK_AGAIN) + ASK_AGAIN:
            return
        self._asked_at = {one: at for one, at in self._asked_at.items() if now < at + ASK_AGAIN} | {owner: now}
        asking = self._background.start(self._ask_before_its_lease(self._peers, owner), f"ask whether {owner} lives")
        await asyncio.wait([asking], timeout=ASK_PATIENCE)

    async def _ask_before_its_lease(self, peers: Peers, owner: str) -> None:
        before = (await self._parts.store.leases()).get(owner)
        # A successor of the same name has another address, and has renewed the lease.
        if not await peers.is_reachable(owner) and (await self._parts.store.leases()).get(owner) == before:
            self._owners.is_dead(owner)

    async def _ask(self, peers: Peers, owner: str) -> None:
        # The answer may be late: the process may have been replaced by one that renews its lease.
        if not await peers.is_reachable(owner) and self._owners.is_late(self._loop().time(), owner):
            self._owners.is_dead(owner)

    async def _look_at(self, entry: WaitingCall) -> None:
        if self._calls.get(entry.id) is not None or not self.is_gone(entry):
            return
        record = self._calls.known_record(entry.id) or await self._parts.store.get_call(entry.id)
        if record is None or record.end_reason is not None:
            # The call has ended, but its entry could not be deleted.
            await self._parts.store.waiting.delete(entry.id)
        elif record.owner != entry.owner:
            # Taken over: the entry was written late by the former owner, and the new one will replace it.
            return
        elif (reason := CARRIER_ENDS.get(record.carrier_status)) is not None:
            await self._end(entry, reason, f"the carrier reported {record.carrier_status}", self._lost_at(entry))
        elif entry.served:
            await self._open(entry)
        elif entry.returns and time.time() >= entry.expires_at and not await self._may_live(entry, record):
            await self._end(entry, EndReason.INTERRUPTED, INTERRUPTED_DETAIL, entry.returns[-1])

    async def _open(self, entry: WaitingCall) -> None:
        """The process of this call is dead: mark the call as waiting for the next stream, and tell the carrier to open
        one."""
        lost_at = self._lost_at(entry)
        returns = counted(entry.returns, lost_at)
        if are_too_many(returns):
            await self._end(entry, EndReason.INTERRUPTED, _too_many(returns), lost_at)
            return
        expires_at = time.time() + max(2 * self._grace, LONGEST_WAIT)
        opened = replace(entry, served=False, expires_at=expires_at, returns=returns)
        if not await self._parts.store.waiting.replace(opened, entry):
            return
        log.warning("the process of a call has died: the call waits for its carrier", owner=entry.owner)
        self._background.start(self._bring_back(opened), f"bring back {entry.id}")

    async def _bring_back(self, entry: WaitingCall) -> None:
        """Tell the carrier to open the next stream: it may not have noticed that the last one is lost. If the carrier
        also opens one by itself, it has the same number, and only one of the two is accepted."""
        control, urls = self._parts.control.get(entry.request.provider), self._parts.return_urls(entry)
        if control is None or urls is None or not entry.carrier_call_id:
            return
        call = CarrierCall(entry.carrier_call_id, entry.account_id)
        for pause in (*BRING_BACK_AGAIN, None):
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    await control.bring_back(call, urls.document, urls.stream)
                log.info("the carrier was told to bring the call back")
                return
            except CarrierCallOver:
                await self._end(entry, EndReason.CARRIER_HANGUP, CALL_IS_OVER, entry.returns[-1])
                return
            except NotFound as error:
                log.warning(NOT_OF_THIS_ACCOUNT, error=error.message, account=entry.account_id)
                return
            except (ConnectorError, TimeoutError) as error:
                log.warning("the carrier could not be told to bring the call back", error=str(error) or "no answer")
            if pause is None or await self._parts.store.waiting.get(entry.id) != entry:
                return
            await asyncio.sleep(pause)

    async def _may_live(self, entry: WaitingCall, record: CallRecord) -> bool:
        """Whether the owner may be alive and only cut off from the store: then its caller is in the room. LiveKit
        removes the caller of a dead process after some seconds."""
        if entry.owner == self._parts.owner:
            return False
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await self._parts.admin.has_call(record.room, record.identity, record.call_id)
        except (ConnectorError, TimeoutError) as error:
            log.warning(
                "LiveKit could not be asked whether the caller is still in the room",
                error=str(error) or "no answer in time",
            )
            return True

    async def _end(self, entry: WaitingCall, reason: EndReason, detail: str, at: float) -> bool:
        """End a call that has no process; False if another process has it, or its entry has changed."""
        taken = await self._parts.store.waiting.take(entry.id)
        if taken is None:
            return False
        if taken != entry:
            await self.put_back(taken)
            return False
        record = await self._parts.store.get_call(entry.id)
        if record is None:
            return True
        ended = await end_calls(self._parts, [record], at, reason, detail)
        if ended:
            log.warning("call could not be resumed: it has ended", owner=entry.owner, reason=reason.value)
            self._parts.metrics.returns.labels("expired").inc()
            self.remove_ghosts(ended)
        return True

    def remove_ghosts(self, ended: Sequence[CallRecord]) -> None:
        self._background.start(remove_ghosts(self._parts, ended), "remove the callers of dead processes")

    async def put_back(self, entry: WaitingCall) -> None:
        """Undo a `take`. If the store fails, the owner of the call writes the entry again."""
        try:
            await self._parts.store.waiting.insert(entry)
        except NameTaken:
            return


def _too_many(returns: Sequence[float]) -> str:
    return f"{len(returns)} streams were lost within {RETURNS_WITHIN:g} s, more than {MOST_RETURNS}"
