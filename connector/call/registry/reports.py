"""Carriers' reports on calls, which may reach any process: they are passed on to the process that holds the call."""

from __future__ import annotations

import structlog

from connector.call.registry.control import CallControl
from connector.call.registry.manager import CallManager
from connector.call.session.call_session import CallSession
from connector.deadlines import deadline
from connector.errors import ConnectorError, FailedPrecondition, NotFound
from connector.model.call import CallRecord, TransferStatus
from connector.peers.commands import CarrierReport, EndStream, ReportCommand, TransferReport

log = structlog.get_logger()

PATIENCE = 3.0
"""Seconds for the process that holds the call. The carrier waits for our answer meanwhile."""


class CarrierReports:
    """If the process that holds the call cannot be asked, each report does what the store alone allows."""

    def __init__(self, calls: CallManager, control: CallControl) -> None:
        self._calls = calls
        self._control = control

    async def status(self, call_id: str, status: str, number: int) -> CallSession | CallRecord | None:
        """Handle a report on the call's status, see `CallManager.carrier_said`. Returns the call if this process holds
        it now; the record, if the process that holds it has got the report; otherwise None. Raises the errors of
        `CallManager.end_waiting`."""
        call = await self._calls.carrier_said(call_id, status, number)
        if call is not None:
            return call
        return await self._told(CarrierReport(call_id, status, number))

    async def transfer_progress(self, call_id: str, stream: int, status: TransferStatus) -> None:
        """See `CallManager.transfer_progress`. Raises StoreError."""
        is_here = self._calls.live_call(call_id) is not None
        if is_here or await self._told(TransferReport(call_id, stream, status)) is None:
            await self._calls.transfer_progress(call_id, stream, status)

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
