"""Operations on a call by its id, whichever process holds it. All APIs use this module."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from connector.call.registry.dialled import OWNER, DialledCalls
from connector.call.registry.manager import CallManager
from connector.call.session.call_session import CallSession
from connector.carriers.transfers import MAX_TIMEOUT, MIN_TIMEOUT
from connector.errors import FailedPrecondition, InvalidArgument, NotFound
from connector.model.call import AgentDispatch, CallRecord, Transfer
from connector.model.end_reason import EndReason
from connector.numbers import E164

END_PATIENCE = 8.0
"""Seconds for another process to end its call after we have removed the caller from the room."""
LOOK_EVERY = 0.1


MAX_SENTENCE = 4096


@dataclass(frozen=True, slots=True)
class TransferWish:
    """A client's transfer request, not validated. Empty or 0 means the default; `to` has none."""

    to: str
    timeout: int = 0
    caller_id: str = ""
    say: str = ""


@dataclass(frozen=True, slots=True)
class TransferDefaults:
    """See `connector.config.Settings`."""

    timeout: int = 30
    say: str = ""


class Records(Protocol):
    async def get_call(self, call_id: str) -> CallRecord | None: ...


class Remover(Protocol):
    async def remove(self, room: str, identity: str) -> None: ...


class CallControl:
    """Reads, ends, moves and transfers calls. Methods with a call id raise NotFound if there never was such a call."""

    def __init__(
        self,
        calls: CallManager,
        store: Records,
        admin: Remover,
        dialled: DialledCalls,
        defaults: TransferDefaults = TransferDefaults(),
    ) -> None:
        self._defaults = defaults
        self._calls = calls
        self._store = store
        self._admin = admin
        self._dialled = dialled

    async def record(self, call_id: str) -> CallRecord:
        """The record of a call, including changes that this process has not saved yet."""
        record = self._calls.known_record(call_id) or await self._store.get_call(call_id)
        if record is None:
            raise NotFound("no such call")
        return record

    def freshest(self, record: CallRecord) -> CallRecord:
        """The record of this process, which may be newer than the saved `record`; otherwise `record`."""
        return self._calls.known_record(record.call_id) or record

    async def live(self, call_id: str) -> CallSession:
        """The live call of this process. Raises FailedPrecondition if the call has ended, or if another process holds
        it (the message names the process)."""
        call = self._calls.live_call(call_id)
        if call is None:
            record = await self.record(call_id)
            if record.end_reason is None and record.owner == OWNER:
                raise FailedPrecondition("the call is LiveKit SIP's, which has no such way to steer it")
            if record.end_reason is None:
                raise FailedPrecondition(f"the call is held by another process, {record.owner}")
            raise FailedPrecondition("the call is ended, not active")
        return call

    async def end(self, call_id: str) -> CallRecord:
        """End both legs and wait until all resources are free. An ended call is no error.

        If another process holds the call, the caller is removed from the room, and that process ends the rest.
        """
        call = self._calls.live_call(call_id)
        if call is not None:
            call.end(EndReason.ENDED_BY_API)
        else:
            call = await self._calls.end_waiting(call_id, EndReason.ENDED_BY_API)
        if call is not None:
            await call.finished.wait()
            return call.record
        record = await self.record(call_id)
        if record.end_reason is None and record.owner == OWNER:
            return await self._dialled.hang_up(record)
        if record.end_reason is None:
            await self._admin.remove(record.room, record.identity)
            record = await self._ended_elsewhere(record)
        return record

    async def _ended_elsewhere(self, record: CallRecord) -> CallRecord:
        try:
            async with asyncio.timeout(END_PATIENCE):
                while record.end_reason is None:  # Poll: other processes do not notify us.
                    await asyncio.sleep(LOOK_EVERY)
                    record = await self.record(record.call_id)
        except TimeoutError:
            raise FailedPrecondition(
                f"the call is held by another process, {record.owner}, which does not end it"
            ) from None
        return record

    async def switch_room(self, call_id: str, room: str, agents: Sequence[AgentDispatch] = ()) -> CallRecord:
        """See `CallSession.switch_room`. The name of the room must be valid."""
        call = await self.live(call_id)
        await call.switch_room(room, agents)
        return call.record

    async def transfer(self, call_id: str, wish: TransferWish, *, wait: bool = False) -> CallRecord:
        """See `CallSession.transfer`. `wait`: wait for the outcome. Raises InvalidArgument, which names the field."""
        order = self._order(wish)
        record = await self.record(call_id)
        if record.end_reason is None and record.owner == OWNER:
            for field, asked in (("failure_sentence", bool(wish.say)), ("wait_until_answered", wait)):
                if asked:
                    raise InvalidArgument(
                        field, "is not for calls of LiveKit SIP: nobody tells the outcome of a transfer"
                    )
            return await self._dialled.transfer(record, order)
        call = await self.live(call_id)
        transfer = await call.transfer(order)
        if wait:
            await transfer.settled.wait()
            if call.is_ending:
                await call.finished.wait()
        return call.record

    def _order(self, wish: TransferWish) -> Transfer:
        for field, number in (("to", wish.to), ("caller_id", wish.caller_id)):
            if not E164.fullmatch(number) and (number or field == "to"):
                raise InvalidArgument(field, "is not a number in E.164 form such as +15551234567")
        if len(wish.say) > MAX_SENTENCE:
            raise InvalidArgument("failure_sentence", f"is longer than {MAX_SENTENCE} characters")
        defaults = self._defaults
        timeout = wish.timeout or defaults.timeout
        if not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
            raise InvalidArgument("timeout", f"is not between {MIN_TIMEOUT} and {MAX_TIMEOUT} seconds")
        return Transfer(wish.to, timeout, wish.caller_id, wish.say or defaults.say)
