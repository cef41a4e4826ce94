"""The calls that this process holds, each until its resources are released."""

from __future__ import annotations

import asyncio

from connector.call.dependencies import CallDependencies
from connector.call.record.late_ends import LateEnds
from connector.call.session.call_session import CallSession
from connector.model.call import CallRecord, CallRequest, WaitingCall


class LiveCalls:
    """The live calls of this process by id, and the ends that the store has not accepted yet."""

    def __init__(self, parts: CallDependencies) -> None:
        self._parts = parts
        self._calls: dict[str, CallSession] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.late = LateEnds(parts)
        self.taken = 0
        """Number of calls that this process has held since its start."""

    def __len__(self) -> int:
        return len(self._calls)

    def begin(
        self, request: CallRequest, record: CallRecord | None = None, waiting: WaitingCall | None = None
    ) -> CallSession:
        """Hold a new call. `record`, `waiting`: given if this process has claimed the call from another process."""
        call = CallSession(request, self._parts, self._finished, record, waiting)
        self._calls[call.call_id] = call
        self.taken += 1
        self._empty.clear()
        return call

    def _finished(self, call: CallSession) -> None:
        if self._calls.get(call.call_id) is call:
            del self._calls[call.call_id]
        if call.late_end is not None:
            self.late.keep(call.late_end)
        if not self._calls:
            self._empty.set()

    def all(self) -> list[CallSession]:
        return list(self._calls.values())

    def get(self, call_id: str) -> CallSession | None:
        """The call, if this process holds it; otherwise None."""
        return self._calls.get(call_id)

    def known_record(self, call_id: str) -> CallRecord | None:
        """The record of a call that this process holds, or has ended without being able to save the end yet."""
        call = self._calls.get(call_id)
        return call.record if call is not None else self.late.get(call_id)

    async def until_none(self) -> None:
        """Wait until this process holds no call."""
        await self._empty.wait()
