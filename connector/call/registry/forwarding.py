"""Commands on a call: carried out here, or by the process that holds the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from connector.call.ports import Admin, Peers
from connector.call.registry.live_calls import LiveCalls
from connector.call.session.call_session import CallSession
from connector.errors import FailedPrecondition, Unavailable
from connector.model.call import CallRecord
from connector.model.end_reason import EndReason
from connector.peers.commands import (
    CallCommand,
    CarrierReport,
    ClearAudio,
    EndCall,
    EndStream,
    SendDtmf,
    SwitchRoom,
    TransferCall,
    TransferReport,
)
from connector.peers.failures import AnswerLost, NoPeerAddress, NotCarried, NotHeld

log = structlog.get_logger()

END_PATIENCE = 8.0
"""Seconds within which a process that cannot be asked must end its call, after we have removed the caller from the
room."""
LOOK_EVERY = 0.1


class Commands:
    """Carries out commands on calls of this process. A command from another process is never passed on."""

    def __init__(self, calls: LiveCalls) -> None:
        self._calls = calls

    async def carry_out(self, command: CallCommand) -> CallRecord:
        """Returns the record after the command. Raises NotHeld if this process does not hold the call, and the errors
        of the call. If the caller is cancelled, the call completes a move or a transfer that it has begun."""
        call = self._calls.get(command.call_id)
        if call is not None:
            return await _carried_out(call, command)
        late = self._calls.known_record(command.call_id)
        if late is None:
            raise NotHeld("this process does not hold the call")
        return after_the_end(command, late)


async def _carried_out(call: CallSession, command: CallCommand) -> CallRecord:
    match command:
        case SendDtmf(digits=digits):
            call.send_dtmf(digits)
        case ClearAudio():
            call.clear_audio()
        case SwitchRoom(room=room, agents=agents):
            await call.switch_room(room, agents)
        case TransferCall(order=order, wait=wait):
            transfer = await call.transfer(order)
            if wait:
                await transfer.settled.wait()
                if call.is_ending:
                    await call.finished.wait()
        case EndCall():
            call.end(EndReason.ENDED_BY_API)
            await call.finished.wait()
            if call.record.end_reason is None:
                raise NotHeld("another process has taken the call over")
        case CarrierReport(status=status, number=number):
            call.carrier_said(status, number)
        case TransferReport(stream=stream, status=status):
            if call.wait.stream == stream:
                await call.transfers.progress(status)
        case EndStream():
            call.end(EndReason.CARRIER_CLOSED, "the carrier executes another document")
    return call.record


def after_the_end(command: CallCommand, record: CallRecord) -> CallRecord:
    """The answer to a command on an ended call: only EndCall is no error."""
    if isinstance(command, EndCall):
        return record
    raise FailedPrecondition("the call is ended, not active")


class Forwarding:
    """Passes commands on to the process that holds the call."""

    def __init__(
        self,
        here: Commands,
        peers: Peers,
        owner: str,
        admin: Admin,
        record: Callable[[str], Awaitable[CallRecord]],
    ) -> None:
        """`owner`: this process. `record` reads the current record of a call."""
        self._here = here
        self._peers = peers
        self._owner = owner
        self._admin = admin
        self._record = record

    async def forward(self, command: CallCommand, record: CallRecord) -> CallRecord:
        """`record`: the call as the store has it, not ended. Returns the owner's answer, or raises its error.

        If the owner did nothing because the call has moved to another process, that process is asked, once. If the
        owner is gone, raises Unavailable at once: the command is lost, and the call is resumed or ended by others."""
        try:
            return await self._asked(command, record)
        except NotCarried as error:
            moved = await self._record(command.call_id)
            if moved.end_reason is not None:
                return after_the_end(command, moved)
            if moved.owner != record.owner:
                return await self._asked(command, moved)
            if isinstance(error, NoPeerAddress) and isinstance(command, EndCall):
                return await self._removed(moved)
            raise
        except AnswerLost:
            if isinstance(command, EndCall):
                ended = await self._record(command.call_id)
                if ended.end_reason is not None:
                    return ended
            raise

    async def _asked(self, command: CallCommand, record: CallRecord) -> CallRecord:
        if record.owner == self._owner:
            # Taken over by this process meanwhile, or left behind by an earlier process of this name.
            return await self._here.carry_out(command)
        answer = await self._peers.ask(record.owner, command)
        if isinstance(command, EndCall) and answer.end_reason is None:
            raise NotHeld("the process that was asked does not hold the call any more")
        return answer

    async def _removed(self, record: CallRecord) -> CallRecord:
        """Ends a call of a process that cannot be asked (an earlier version, or one without an address for this
        machine): removes the caller from the room, whereupon that process ends the call."""
        await self._admin.remove(record.room, record.identity)
        try:
            async with asyncio.timeout(END_PATIENCE):
                while record.end_reason is None:  # Poll: that process cannot notify us.
                    await asyncio.sleep(LOOK_EVERY)
                    record = await self._record(record.call_id)
        except TimeoutError:
            raise Unavailable(f"the process {record.owner}, which holds the call, does not end it") from None
        return record
