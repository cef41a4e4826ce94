"""The teardown of a call. Every step has a time limit, and runs even if an earlier step failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from connector.call.dependencies import STEP_TIMEOUT, End
from connector.call.ports import CarrierSocket
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence
from connector.call.session.wait import Wait
from connector.errors import ConnectorError
from connector.model.end_reason import EndReason

log = structlog.get_logger()

T = TypeVar("T")


_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""End reasons that a carrier also causes when another process has told it to come back."""


class Teardown:
    """Frees the resources of one call."""

    def __init__(self, recorder: CallRecorder, presence: Presence, leg: PhoneLeg) -> None:
        self._recorder = recorder
        self._presence = presence
        self._leg = leg

    async def run(self, end: End, wait: Wait, socket: CarrierSocket | None, was_active: bool, away: bool) -> None:
        """Free all resources if this process owns the call; otherwise only its own resources. `away`: the phone has
        left its stream and could come back."""
        if await self._is_ours(wait, yields=end.reason in _STREAM_ENDS):
            await self._take_down(end, socket, was_active, away)
        else:
            await self._step_aside(socket, end)

    async def _is_ours(self, wait: Wait, *, yields: bool) -> bool:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await wait.settle(yields=yields)
        except (ConnectorError, TimeoutError) as error:
            log.warning("teardown step failed", step="claim", error=str(error))
        except Exception:
            log.exception("teardown step failed", step="claim")
        return True

    async def _take_down(self, end: End, socket: CarrierSocket | None, was_active: bool, away: bool) -> None:
        await _step("attributes", self._presence.say_goodbye())
        await _step("dialing", self._leg.settle())
        if why := await _step("hang up", self._leg.hang_up(end, was_active, away)):
            # Recorded for later questions about the call: it is over here, but maybe not for the phone.
            end = replace(end, detail="; ".join(filter(None, (end.detail, f"the phone was not hung up: {why}"))))
        if socket is not None:
            await _step("socket", socket.close(end.close_code, end.reason.value))
        # The call is over for the caller, so the following steps must not count as call time.
        try:
            self._recorder.finish(end, self._presence.bridge)
        finally:
            await _step("room", self._presence.leave())
            if not was_active:
                await _step("undo", self._presence.undo())
        await _step("record", self._recorder.close())
        await _step("events", self._recorder.dispatcher.told())

    async def _step_aside(self, socket: CarrierSocket | None, end: End) -> None:
        if socket is not None:
            await _step("socket", socket.close(end.close_code, end.reason.value))
        await self._presence.until_replaced()
        await _step("room", self._presence.leave())
        await _step("events", self._recorder.dispatcher.told())
        await _step("record", self._recorder.reread())
        log.info("another process carries the call", owner=self._recorder.record.owner)


async def stop_tasks(tasks: Sequence[asyncio.Task[None] | None]) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=STEP_TIMEOUT)


async def _step(name: str, work: Awaitable[T]) -> T | None:
    """Run one step. Returns its result, or None if it failed."""
    try:
        return await asyncio.wait_for(work, STEP_TIMEOUT)
    except ConnectorError as error:
        log.warning("teardown step failed", step=name, error=error.message)
    except Exception:
        log.exception("teardown step failed", step=name)
    return None
