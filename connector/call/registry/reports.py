"""Carriers' reports on calls, which may reach any process: they are passed on to the process that holds the call."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.registry.control import CallControl
from connector.call.registry.manager import CallManager
from connector.call.session.call_session import CallSession
from connector.call.session.transfer import WayBack
from connector.deadlines import deadline
from connector.errors import ConnectorError, FailedPrecondition, NotFound
from connector.model.call import NOT_REACHED, CallRecord, Transfer, TransferStatus
from connector.peers.commands import CarrierReport, EndStream, ReportCommand, TransferReport

log = structlog.get_logger()

PATIENCE = 3.0
"""Seconds for the process that holds the call. The carrier waits for our answer meanwhile."""


class TransferReports:
    """Reports on transfers, handled by this process: for its own calls, and in the store for calls of others. `stream`
    is the number of the stream that follows if the transfer fails."""

    def __init__(self, calls: CallManager, parts: CallDependencies) -> None:
        self._calls = calls
        self._parts = parts

    async def over(self, call_id: str, stream: int, status: TransferStatus, *, caller_left: bool) -> WayBack | None:
        """The transfer's dial has ended: return the carrier's instructions for the phone; None: hang up. Raises
        StoreError."""
        call = self._calls.held.get(call_id)
        if call is not None:
            return await call.transfers.over(status, caller_left) if call.wait.stream == stream else None
        waiting = await self._parts.store.waiting.get(call_id)
        if waiting is None or waiting.transfer is None or waiting.stream != stream:
            return None
        transfer = waiting.transfer
        if status is TransferStatus.ANSWERED or caller_left or transfer.say:
            call = await self._calls.take_overs.take_if_waiting(call_id)
            return await call.transfers.over(status, caller_left) if call is not None else None
        if transfer.status not in NOT_REACHED:
            # The owner reads this status when the stream comes back, or when its time is over.
            expires_at = max(waiting.expires_at, time.time() + self._parts.limits.answer_grace)
            waiting = replace(waiting, transfer=replace(transfer, status=status), expires_at=expires_at)
            if not await self._parts.store.waiting.replace(waiting):
                return None
            log.info("failed transfer recorded for another process", owner=waiting.owner, status=status.value)
        return WayBack("", stream, waiting.expires_at, waiting.request.region)

    async def order(self, call_id: str, stream: int) -> Transfer | None:
        """The current transfer of a call; None if there is none. Raises StoreError."""
        call = self._calls.held.get(call_id)
        if call is not None:
            return call.wait.transfer if call.transfers.is_open and call.wait.stream == stream else None
        waiting = await self._parts.store.waiting.get(call_id)
        return waiting.transfer if waiting is not None and waiting.stream == stream else None

    async def progress(self, call_id: str, stream: int, status: TransferStatus) -> None:
        """Handle the report that the number rings, or that somebody has answered. Raises StoreError."""
        call = self._calls.held.get(call_id)
        if call is None and status is TransferStatus.ANSWERED:
            waiting = await self._parts.store.waiting.get(call_id)
            if waiting is not None and waiting.stream == stream:
                call = await self._calls.take_overs.take_if_waiting(call_id)
        if call is not None and call.wait.stream == stream:
            await call.transfers.progress(status)


class CarrierReports:
    """If the process that holds the call cannot be asked, each report does what the store alone allows."""

    def __init__(self, calls: CallManager, control: CallControl, transfers: TransferReports) -> None:
        self._calls = calls
        self._control = control
        self._transfers = transfers

    async def status(self, call_id: str, status: str, number: int) -> CallSession | CallRecord | None:
        """Handle a report on the call's status, see `CallManager.carrier_said`. Returns the call if this process holds
        it now; the record, if the process that holds it has got the report; otherwise None. Raises the errors of
        `CallManager.end_waiting`."""
        call = await self._calls.carrier_said(call_id, status, number)
        if call is not None:
            return call
        return await self._told(CarrierReport(call_id, status, number))

    async def transfer_progress(self, call_id: str, stream: int, status: TransferStatus) -> None:
        """See `TransferReports.progress`. Raises StoreError."""
        is_here = self._calls.held.get(call_id) is not None
        if is_here or await self._told(TransferReport(call_id, stream, status)) is None:
            await self._transfers.progress(call_id, stream, status)

    async def end_stream(self, call_id: str) -> None:
        """End the call: the phone follows another document, and the carrier leaves the old stream open."""
        await self._told(EndStream(call_id))

    async def _told(self, report: ReportCommand) -> CallRecord | None:
        try:
            async with deadline(PATIENCE):
                return await self._control.report(report)
        except (FailedPrecondition, NotFound):
            pass  # The call has ended, or is LiveKit SIP's: no process holds it.
        except ConnectorError as error:
            log.warning(
                "a report did not reach the process that holds the call",
                call_id=report.call_id,
                report=report.name,
                error=error.message,
            )
        return None
