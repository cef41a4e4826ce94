"""The progress of one transfer: its status in the record, and the events about it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from connector.call.record.call_recorder import CallRecorder
from connector.model.call import NOT_REACHED, Transfer, TransferStatus
from connector.model.webhook import LifecycleEvent

log = structlog.get_logger()


class CallTransfer:
    """Keeps the record's `transfer_status` up to date and emits the events. Status reports may arrive twice and in any
    order: a final status does not change."""

    def __init__(self, order: Transfer, recorder: CallRecorder) -> None:
        self.order = order
        self._recorder = recorder
        self.settled = asyncio.Event()
        """Set when the phone streams again, or when the call ends."""
        self.parted = asyncio.Event()
        """Set when the phone has left its stream."""

    @property
    def status(self) -> TransferStatus:
        return self.order.status

    @property
    def failed(self) -> bool:
        """The number was not reached: the phone comes back, or is back already."""
        return self.order.status in NOT_REACHED

    @property
    def is_final(self) -> bool:
        return self.failed or self.order.status in (TransferStatus.ANSWERED, TransferStatus.UNKNOWN)

    def begin(self) -> None:
        self._recorder.transfer_is(self.order.to, self.order.status)
        self._recorder.tell(LifecycleEvent.TRANSFER_INITIATED, to=self.order.to)

    def accepted(self) -> None:
        """The carrier has accepted the transfer, and calls the number."""
        if not self.is_final:
            self._recorder.tell(LifecycleEvent.TRANSFERRING, to=self.order.to)
        log.info("call is being transferred", to=self.order.to, timeout_seconds=self.order.timeout)

    def hear(self, status: TransferStatus) -> None:
        """Handle a status report of the carrier."""
        if self.is_final or status in (self.order.status, TransferStatus.INITIATED):
            return
        self.order = replace(self.order, status=status)
        self._recorder.transfer_is(self.order.to, status)
        match status:
            case TransferStatus.RINGING:
                self._recorder.tell(LifecycleEvent.TRANSFER_RINGING, to=self.order.to)
            case TransferStatus.ANSWERED:
                self._recorder.tell(LifecycleEvent.TRANSFER_ACCEPTED, to=self.order.to)
                self._recorder.tell(LifecycleEvent.TRANSFERRED, to=self.order.to)
            case TransferStatus.UNKNOWN:
                self._recorder.tell(LifecycleEvent.TRANSFERRED, to=self.order.to)
            case TransferStatus.BUSY | TransferStatus.NO_ANSWER | TransferStatus.FAILED | TransferStatus.CANCELED:
                self._recorder.tell(LifecycleEvent.TRANSFER_FAILED, to=self.order.to, reason=status.value)
                log.info("transfer failed", to=self.order.to, status=status.value)
