"""Operations on a call by its id, whichever process holds it. All APIs use this module."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from connector.call.ports import Admin, Peers
from connector.call.registry.dialled import OWNER, DialledCalls
from connector.call.registry.forwarding import Commands, Forwarding, after_the_end
from connector.call.registry.manager import CallManager
from connector.carriers.transfers import MAX_TIMEOUT, MIN_TIMEOUT
from connector.errors import FailedPrecondition, InvalidArgument, NotFound
from connector.model.call import AgentDispatch, CallRecord, Transfer
from connector.model.end_reason import EndReason
from connector.numbers import E164
from connector.peers.commands import (
    CallCommand,
    ClearAudio,
    EndCall,
    ReportCommand,
    SendDtmf,
    SwitchRoom,
    TransferCall,
)
from connector.peers.failures import NotHeld

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


class CallControl:
    """Reads, ends, moves and transfers calls. Methods with a call id raise NotFound if there never was such a call."""

    def __init__(
        self,
        calls: CallManager,
        admin: Admin,
        dialled: DialledCalls,
        peers: Peers,
        owner: str,
        defaults: TransferDefaults = TransferDefaults(),
    ) -> None:
        """`owner`: the name of this process."""
        self._defaults = defaults
        self._calls = calls
        self._dialled = dialled
        self._here = Commands(calls.held)
        self._forwarding = Forwarding(self._here, peers, owner, admin, self.record)

    async def record(self, call_id: str) -> CallRecord:
        """The record of a call, including changes that this process has not saved yet."""
        record = await self._calls.record(call_id)
        if record is None:
            raise NotFound("no such call")
        return record

    def freshest(self, record: CallRecord) -> CallRecord:
        """The record of this process, which may be newer than the saved `record`; otherwise `record`."""
        return self._calls.held.known_record(record.call_id) or record

    async def send_dtmf(self, call_id: str, digits: str) -> None:
        """See `CallSession.send_dtmf`. If it raises `Unavailable` or DeadlineExceeded, the digits may have been
        played."""
        await self._carry_out(SendDtmf(call_id, digits))

    async def clear_audio(self, call_id: str) -> None:
        """See `CallSession.clear_audio`."""
        await self._carry_out(ClearAudio(call_id))

    async def end(self, call_id: str) -> CallRecord:
        """End both legs and wait until all resources are free. An ended call is no error. A call that waits for its
        stream in another process is taken over and ended here."""
        return await self._carry_out(EndCall(call_id))

    async def switch_room(self, call_id: str, room: str, agents: Sequence[AgentDispatch] = ()) -> CallRecord:
        """See `CallSession.switch_room`. The name of the room must be valid."""
        return await self._carry_out(SwitchRoom(call_id, room, tuple(agents)))

    async def transfer(self, call_id: str, wish: TransferWish, *, wait: bool = False) -> CallRecord:
        """See `CallSession.transfer`. `wait`: wait for the outcome. Raises InvalidArgument, which names the field."""
        order = self._order(wish)
        record = await self.record(call_id)
        if record.end_reason is None and record.owner == OWNER:
            for field, asked in (("failure_sentence", bool(wish.say)), ("wait_until_answered", wait)):
                if asked:
                    raise InvalidArgument(
                        field, "is not supported for calls over LiveKit SIP: the outcome of a transfer is not reported"
                    )
            return await self._dialled.transfer(record, order)
        return await self._carry_out(TransferCall(call_id, order, wait))

    async def report(self, report: ReportCommand) -> CallRecord:
        """Have the process that holds the call handle a carrier's report. Raises the errors of the methods above;
        FailedPrecondition if no process holds the call."""
        return await self._carry_out(report)

    async def _carry_out(self, command: CallCommand) -> CallRecord:
        """By the process that holds the call. Raises the errors of the call; Unavailable if that process is gone or its
        answer is lost; DeadlineExceeded if it is too slow."""
        with contextlib.suppress(NotHeld):
            return await self._here.carry_out(command)
        if isinstance(command, EndCall):
            waiting = await self._calls.end_waiting(command.call_id, EndReason.ENDED_BY_API)
            if waiting is not None:
                await waiting.finished.wait()
                return waiting.record
        record = await self.record(command.call_id)
        if record.end_reason is not None:
            return after_the_end(command, record)
        if record.owner == OWNER:
            if isinstance(command, EndCall):
                return await self._dialled.hang_up(record)
            raise FailedPrecondition("the call runs over LiveKit SIP, which does not support this operation")
        return await self._forwarding.forward(command, record)

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
