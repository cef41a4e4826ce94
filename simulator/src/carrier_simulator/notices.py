"""The application hears of a call's progress, one status after the other."""

from __future__ import annotations

import asyncio

from carrier_simulator.dialect import Office
from carrier_simulator.faults import CarrierError, Refused
from carrier_simulator.terms import FINAL, Callback, CallStatus
from carrier_simulator.web import Form


class Notices:
    """`errors` gets what went wrong in telling."""

    def __init__(self, office: Office, callback: Callback | None, errors: list[CarrierError]) -> None:
        self._office = office
        self._callback = callback
        self._errors = errors
        self._waiting: asyncio.Queue[Form | None] = asyncio.Queue()
        self._count = 0

    @property
    def count(self) -> int:
        """How many there have been."""
        return self._count

    def wants(self, status: CallStatus) -> bool:
        event = "answered" if status is CallStatus.IN_PROGRESS else "completed" if status in FINAL else status.value
        return self._callback is not None and event in self._callback.events

    def add(self, form: Form) -> None:
        self._count += 1
        self._waiting.put_nowait(form)

    def close(self) -> None:
        """There will be no more: `tell` returns when all are through."""
        self._waiting.put_nowait(None)

    async def tell(self) -> None:
        """Send them one after the other, so that they arrive in order."""
        while (form := await self._waiting.get()) is not None:
            assert self._callback is not None
            try:
                await self._office.web.notify(self._callback.url, self._callback.method, form)
            except Refused as refused:
                self._errors.append(refused.error)
