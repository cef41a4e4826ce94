"""All calls of this process: admission, look-up, drain."""

from __future__ import annotations

import asyncio
import time

import structlog

from connector.call.session import CallSession
from connector.call.terms import Parts
from connector.errors import ResourceExhausted, TokenExpired, TokenInvalid, Unavailable
from connector.model import CallRequest, CallState, EndReason

log = structlog.get_logger()


class CallManager:
    """Holds every live call; a call leaves it when everything it held is free."""

    def __init__(self, parts: Parts, max_calls: int) -> None:
        self._parts = parts
        self._max_calls = max_calls
        self._calls: dict[str, CallSession] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False

    @property
    def full(self) -> bool:
        return len(self._calls) >= self._max_calls

    def live(self) -> list[CallSession]:
        return list(self._calls.values())

    def count_states(self) -> None:
        """Bring the gauge of active calls up to date; called when metrics are read."""
        counts = dict.fromkeys(CallState, 0)
        for call in self._calls.values():
            counts[call.state] += 1
        for state in (CallState.PENDING, CallState.RINGING, CallState.ACTIVE):
            self._parts.metrics.active.labels(state.value).set(counts[state])

    async def create(self, request: CallRequest) -> CallSession:
        """Admit and open a call. Raises Unavailable, ResourceExhausted or what LiveKit's state demands."""
        if self.draining:
            raise Unavailable("the connector is shutting down and takes no new calls")
        if self.full:
            raise ResourceExhausted(f"the connector holds {self._max_calls} calls, its configured maximum")
        started = time.monotonic()
        call = CallSession(request, self._parts, self._finished)
        self._calls[request.call_id] = call
        self._empty.clear()
        await call.open()
        self._parts.metrics.setup.labels("api", request.direction.value).observe(time.monotonic() - started)
        return call

    def _finished(self, call: CallSession) -> None:
        self._calls.pop(call.call_id, None)
        if not self._calls:
            self._empty.set()

    async def find(self, call_id: str) -> CallSession:
        """The live call of a verified token. TokenExpired when it is over, TokenInvalid when it never was."""
        call = self._calls.get(call_id)
        if call is not None:
            return call
        if await self._parts.store.get_call(call_id) is not None:
            raise TokenExpired("the call has ended")
        raise TokenInvalid("no such call")

    def live_call(self, call_id: str) -> CallSession | None:
        """The call if this process holds it."""
        return self._calls.get(call_id)

    async def drain(self, limit: float) -> None:
        """Take no new calls, let live ones finish for `limit` seconds, then end them and wait for that."""
        self.draining = True
        if self._calls and limit:
            log.info("draining", calls=len(self._calls), limit_seconds=limit)
            try:
                await asyncio.wait_for(self._empty.wait(), limit)
            except TimeoutError:
                log.warning("drain limit reached, ending live calls", calls=len(self._calls))
        self.end_all()
        await self._empty.wait()

    def end_all(self) -> None:
        """Ask every live call to end; each frees itself."""
        for call in self.live():
            call.end(EndReason.SHUTDOWN)
