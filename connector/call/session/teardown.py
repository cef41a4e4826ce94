"""The teardown of a call: its tasks stop, then its resources are freed. Every step has a time limit, and runs even if
an earlier step failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies, End
from connector.call.media.bridge import Bridge
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.call.session.lifetime import Lifetime
from connector.call.session.moves import Moves
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence
from connector.call.session.streams import Streams
from connector.call.session.transfer import Transfers
from connector.call.session.wait import Stage, Wait
from connector.errors import ConnectorError
from connector.model.call import CallState
from connector.model.end_reason import EndReason

log = structlog.get_logger()

T = TypeVar("T")


MOST_LAST_WORDS = 1.0
"""Maximum seconds that the end of a call waits for the last words. Usually the carrier returns the mark behind them in
a fraction of that; if it returns none or accepts no audio, the wait costs this time."""
_NOBODY_LISTENS = frozenset(
    {
        EndReason.CARRIER_HANGUP,
        EndReason.CARRIER_CLOSED,
        EndReason.CARRIER_LOST,
        EndReason.MEDIA_TIMEOUT,
        EndReason.PROTOCOL_ERROR,
        EndReason.CALL_MISMATCH,
        EndReason.TRANSFERRED,
        EndReason.INTERRUPTED,
        EndReason.INTERNAL_ERROR,
    }
)
"""End reasons without last words: the phone or its stream is already gone, or the stream cannot be trusted."""
_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""End reasons that a carrier also causes when another process has told it to come back."""


class Teardown:
    """Frees the resources of one call."""

    def __init__(
        self,
        parts: CallDependencies,
        recorder: CallRecorder,
        streams: Streams,
        presence: Presence,
        leg: PhoneLeg,
        transfers: Transfers,
        watch: CallWatch,
        moves: Moves,
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._streams = streams
        self._presence = presence
        self._leg = leg
        self._transfers = transfers
        self._watch = watch
        self._moves = moves

    async def run(self, end: End, life: Lifetime) -> None:
        """Stop the call's tasks. Then free all its resources if this process owns the call, otherwise only the
        resources of this process."""
        self._parts.joins.forget(self._recorder.request.call_id)
        if end.reason is EndReason.SHUTDOWN:
            # The call can be left to another process only if the phone leaves its stream, so wait for the answer.
            await self._transfers.until_asked()
        line, wait = self._streams.current, self._streams.wait
        was_active = self._recorder.record.state is CallState.ACTIVE
        is_away = was_active and (line is None or self._transfers.is_open)
        may_come_back = was_active and self._transfers.is_open
        self._presence.bridge.close()
        self._presence.bridge.collect_drops()
        self._transfers.close()
        if line is not None:
            line.stop()
        if is_away and end.reason is EndReason.SHUTDOWN and wait.stage is Stage.SHARED:
            # The carrier has the phone: the process that gets the next stream owns the call.
            wait.leave()
        life.stop_timers()
        self._watch.stop()
        if was_active and line is not None:
            await play_out(end.reason, self._presence.bridge, line.over)
        await _stop((*life.tasks, *self._watch.tasks, self._moves.task, self._moves.saving))
        if await self._is_ours(self._streams.wait, yields=end.reason in _STREAM_ENDS):
            await self._take_down(end, was_active, may_come_back)
        else:
            await self._step_aside(end)

    async def _is_ours(self, wait: Wait, *, yields: bool) -> bool:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await wait.settle(yields=yields)
        except (ConnectorError, TimeoutError) as error:
            log.warning("teardown step failed", step="claim", error=str(error))
        except Exception:
            log.exception("teardown step failed", step="claim")
        return True

    async def _take_down(self, end: End, was_active: bool, away: bool) -> None:
        """`away`: the phone has left its stream and could come back."""
        socket = self._streams.socket
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

    async def _step_aside(self, end: End) -> None:
        if (socket := self._streams.socket) is not None:
            await _step("socket", socket.close(end.close_code, end.reason.value))
        await self._presence.until_replaced()
        await _step("room", self._presence.leave())
        await _step("events", self._recorder.dispatcher.told())
        await _step("record", self._recorder.reread())
        log.info("another process carries the call", owner=self._recorder.record.owner)


async def _stop(tasks: Sequence[asyncio.Task[None] | None]) -> None:
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


async def play_out(reason: EndReason, bridge: Bridge, stream_over: asyncio.Event) -> None:
    """Wait until the carrier has played all audio. The wait ends when the mark behind the audio returns, when the
    estimated playing time or `MOST_LAST_WORDS` seconds have passed, or when the stream is over. Returns at once if no
    audio can be left to play."""
    if reason in _NOBODY_LISTENS or stream_over.is_set():
        return
    played = asyncio.Event()
    seconds = bridge.last_words(played.set)
    if seconds <= 0:
        return
    waits = [asyncio.ensure_future(event.wait()) for event in (played, stream_over)]
    try:
        await asyncio.wait(waits, timeout=min(seconds, MOST_LAST_WORDS), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
