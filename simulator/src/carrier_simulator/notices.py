"""The application hears of a call: of each status, of its streams and of the legs that were dialled."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from carrier_simulator.faults import CarrierError, Refused
from carrier_simulator.jitter import Delays
from carrier_simulator.terms import FINAL, Callback, CallStatus
from carrier_simulator.web import Form, Web


class _Notice(NamedTuple):
    url: str
    method: str
    form: Form


class Notices:
    """One after the other, or, with `delays`, each by itself: the order is then any.

    `errors` gets the errors of these requests.
    """

    def __init__(self, web: Web, callback: Callback | None, delays: Delays | None, errors: list[CarrierError]) -> None:
        self._web = web
        self._callback = callback
        self._delays = delays
        self._errors = errors
        self._waiting: asyncio.Queue[_Notice | None] = asyncio.Queue()
        self._count = 0

    @property
    def count(self) -> int:
        """How many statuses have been told."""
        return self._count

    def wants(self, status: CallStatus) -> bool:
        event = "answered" if status is CallStatus.IN_PROGRESS else "completed" if status in FINAL else status.value
        return self._callback is not None and event in self._callback.events

    def add(self, form: Form) -> None:
        """A status that is wanted."""
        assert self._callback is not None
        self._count += 1
        self._waiting.put_nowait(_Notice(self._callback.url, self._callback.method, form))

    async def tell(self, url: str, method: str, form: Form) -> None:
        """Another callback about the call; returns when it has been answered, or at once when it may come late."""
        notice = _Notice(url, method, form)
        if self._delays is None:
            await self._send(notice)
        else:
            self._waiting.put_nowait(notice)

    def close(self) -> None:
        """There will be no more: `run` returns when all are through."""
        self._waiting.put_nowait(None)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as sending:
            while (notice := await self._waiting.get()) is not None:
                if self._delays is None:
                    await self._send(notice)
                else:
                    sending.create_task(self._send(notice, self._delays.next("callback")))

    async def _send(self, notice: _Notice, delay: float = 0.0) -> None:
        if delay:
            await asyncio.sleep(delay)
        try:
            await self._web.notify(*notice)
        except Refused as refused:
            self._errors.append(refused.error)
