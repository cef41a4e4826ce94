"""Lost streams and their return: a socket broke, and the carrier opens another one for the same call.

While the stream is lost, the participant stays in the room for a grace period, and the call has an entry in
`store.waiting`, so that the stream may return to any process. A transfer uses the same entry; see
`connector.call.session.transfer`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from enum import Enum, auto

import structlog

from connector.call.dependencies import CLOSE_RESTART, STEP_TIMEOUT, CallDependencies
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.call.session.lifetime import Lifetime
from connector.call.session.presence import Presence
from connector.call.session.streams import Streams
from connector.call.session.wait import Stage, Wait
from connector.call.session.watchdog import STREAM_LOST
from connector.errors import CarrierCallOver, ConnectorError, NotFound
from connector.model.call import CallRequest, CallState, CarrierCall, WaitingCall
from connector.model.end_reason import EndReason

log = structlog.get_logger()

AWAY = STREAM_LOST
"""`connector.callStatus` of the participant while its stream is lost."""
MOST_RETURNS = 3
RETURNS_WITHIN = 60.0
"""More than MOST_RETURNS lost streams within so many seconds end the call: the path to the carrier is not stable."""
SILENT = 1.0
"""Seconds without a message after which a second socket with the same token replaces the first one."""
SILENCE_PATIENCE = 1.5
"""Seconds for which the handshake of a second socket waits for the first one to be lost or silent."""
REPEATED_WITHIN = 10.0
"""Seconds after a return in which a request about the previous stream is a repetition, and gets the same answer."""
CALL_IS_OVER = "the carrier has the call no longer"
NOT_OF_THIS_ACCOUNT = (
    "the carrier does not know the call in this account: check the credentials of its REST API; the call ends unless "
    "the carrier comes back by itself"
)
"""A log line. That a carrier does not find the call does not prove that the call is over."""
_LOOK_EVERY = 0.1

_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED})
"""End reasons that a carrier also causes when another process has told it to open a new stream."""


class ResumeVerdict(Enum):
    STREAM = auto()
    """Answer a document that streams, with the token of `Resume.stream`."""
    LIVES = auto()
    """The stream is open: the carrier continues to wait."""
    OVER = auto()
    """Hang up."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The answer to a carrier that asks how the phone of a call goes on."""

    verdict: ResumeVerdict
    stream: int
    """Number of the stream to open; only for STREAM."""
    deadline: float
    """Latest Unix time at which that stream may open."""
    request: CallRequest | None
    """None if the call has ended, or is being taken over by another process."""


class Step(Enum):
    """See `decide`."""

    ANSWER = auto()
    """The stream is expected: STREAM, with nothing to change."""
    REPEAT = auto()
    """The stream was opened a moment ago: STREAM with its number again, for a repeated request."""
    OPEN = auto()
    """The stream is lost: accept the next one, then STREAM."""
    LIVES = auto()
    OVER = auto()


def decide(
    ended: int, expected: int, *, served: bool, claimed: bool, is_certain: bool, in_transfer: bool, since_return: float
) -> Step:
    """Decide about a carrier that asks after its stream number `ended` is over.

    `expected`: number of the stream that the call waits for, or would wait for. `served`: the stream before it is being
    served. `claimed`: `expected` itself has been claimed, and is not active yet. `is_certain`: the stream is known to
    be lost, since the carrier or its dead owner has given it up. `in_transfer`: the phone is away on a transfer.
    `since_return`: seconds since the last stream was lost.
    """
    if ended == expected:
        # Its document was answered, but the stream was never opened, or was lost before it was active.
        if served or claimed:
            return Step.OPEN if is_certain else Step.LIVES
        return Step.OPEN
    if ended == expected - 1:
        if claimed:
            return Step.REPEAT
        if served:
            return Step.OPEN if is_certain else Step.LIVES
        return Step.ANSWER if is_certain or not in_transfer else Step.LIVES
    if ended == expected - 2 and served and since_return < REPEATED_WITHIN:
        return Step.REPEAT
    return Step.OVER


def counted(returns: tuple[float, ...], now: float) -> tuple[float, ...]:
    """`returns` with one more at `now`, without those that are too old to count."""
    return (*(at for at in returns if now - RETURNS_WITHIN < at), now)


def are_too_many(returns: tuple[float, ...]) -> bool:
    return len(returns) > MOST_RETURNS


class Returns:
    """The lost streams of one call, one after the other."""

    def __init__(
        self,
        life: Lifetime,
        streams: Streams,
        watch: CallWatch,
        parts: CallDependencies,
        recorder: CallRecorder,
        presence: Presence,
    ) -> None:
        self._life = life
        self._streams = streams
        self._watch = watch
        watch.on_left = self._on_left
        self._parts = parts
        self._grace = parts.limits.resume_grace
        self._patience = self._grace + parts.carriers[recorder.request.provider].comes_back_within
        """Time limit in seconds for the return of a lost stream: a carrier that polls may come at the end of its
        interval."""
        self._metrics = parts.metrics
        self._recorder = recorder
        self._presence = presence
        self._loop = asyncio.get_running_loop()
        self._lost: tuple[EndReason, str] | None = None
        """How the lost stream ended; None if no stream is lost."""
        self._lost_at = 0.0
        """Unix time of the lost stream's last message; of another process, see `WaitingCall.returns`."""
        self._is_taken = False
        self.is_handed_over = False
        """This process stops: another one is to claim the next stream."""

    @property
    def is_open(self) -> bool:
        """A stream is lost, and the next one is not active yet."""
        return self._lost is not None

    def inherit(self, waiting: WaitingCall) -> None:
        """This process has claimed the call from another one, which has lost its stream."""
        self._is_taken = True
        self._watch.inherit(waiting.agents_left)
        self._lost = (EndReason.CARRIER_LOST, "the stream was lost with its process")
        self._lost_at = waiting.returns[-1] if waiting.returns else time.time()
        self._presence.expects(waiting.room_sid if waiting.request.room == self._recorder.record.room else "")

    def serve(self) -> None:
        """The current stream is active: write the call's entry, so that other processes can take the call over."""
        if not self._grace or self._life.is_ending:
            return
        former = self._streams.wait
        if former.stage is Stage.OURS:
            self._wait_after(former)
            self._streams.wait.sync()

    def _wait_after(self, former: Wait) -> None:
        former.stop()
        former.complete = self._complete
        self._streams.wait = Wait.after(former)

    def _complete(self, entry: WaitingCall) -> WaitingCall:
        """Add what another process needs to carry on: the caller's current room, its agents, and how the caller appears
        there. A change is written within a second; see `Wait.seen`."""
        room = self._presence.room
        now = room.participant
        theirs = self._recorder.privacy.own(self._recorder.theirs(now.attributes))
        request = replace(
            entry.request,
            room=self._recorder.record.room,
            agents=tuple(self._watch.agents),
            participant=replace(now, attributes=theirs),
        )
        return replace(entry, request=request, room_sid=room.sid, agents_left=self._watch.left)

    def _on_left(self) -> None:
        wait = self._streams.wait
        if wait.stage in (Stage.SERVED, Stage.SHARED) and wait.is_return:
            wait.sync()

    # Away

    def takes_stream_end(self, reason: EndReason, detail: str, *, is_broken: bool) -> bool:
        """Whether the call goes on without this stream, because it broke and the carrier may come back."""
        wait = self._streams.wait
        is_broken = is_broken or reason is EndReason.CARRIER_LOST
        # The carrier also ends the stream if another process considers this one dead, and has told the carrier to open
        # a new stream.
        is_called_back = reason in _STREAM_ENDS and self._loop.time() < wait.reopened_at + 2 * self._grace
        return (is_broken or is_called_back) and self.begin(reason, detail)

    def begin(self, reason: EndReason, detail: str = "") -> bool:
        """The current stream is lost: wait for the next one, or end the call if too many were lost. False: the call
        cannot go on without a stream."""
        if not self._grace or self._life.is_ending or self._recorder.record.state is not CallState.ACTIVE:
            return False
        former = self._streams.wait
        if former.stage is Stage.LOST:
            return False
        if former.stage is Stage.SHARED:
            return True
        now = time.time()
        if self._lost is None:
            self._lost, self._lost_at = (reason, detail), now - (self._streams.silent_for or 0.0)
        self._watch.hold(AWAY)
        if former.stage is not Stage.SERVED:
            # The stream was claimed, but broke before it was active.
            self._wait_after(former)
        wait = self._streams.wait
        wait.returns = counted(wait.returns, now)
        if are_too_many(wait.returns):
            self._metrics.returns.labels("too_many").inc()
            self._life.end(EndReason.INTERRUPTED, f"{len(wait.returns)} streams were lost within {RETURNS_WITHIN:g} s")
            return True
        wait.open(self._patience, self._on_time_over)
        self._streams.detach(AWAY, 0.0)
        self._recorder.stream_changed(AWAY)
        log.warning("the stream is lost: waiting for the carrier to come back", detail=detail, seconds=self._patience)
        if self._patience > self._grace:
            self._life.begin("bring back", self._bring_back(wait.entry()))
        return True

    def lose(self, reason: EndReason, detail: str = "") -> None:
        """The stream is lost: the call waits for the next one if it can, otherwise it ends."""
        if not self.begin(reason, detail):
            self._life.end(reason, detail)

    async def _bring_back(self, entry: WaitingCall) -> None:
        """Tell a carrier that polls to open a new stream now. If that fails, it does so at its next interval."""
        control, urls = self._parts.control.get(entry.request.provider), self._parts.return_urls(entry)
        if control is None or urls is None or not entry.carrier_call_id:
            return
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                phone = CarrierCall(entry.carrier_call_id, entry.account_id)
                await control.bring_back(phone, urls.document, urls.stream)
        except CarrierCallOver:
            if self.is_open:
                self._life.end(EndReason.CARRIER_HANGUP, CALL_IS_OVER)
        except NotFound as error:
            log.warning(NOT_OF_THIS_ACCOUNT, error=error.message, account=entry.account_id)
        except (ConnectorError, TimeoutError) as error:
            log.warning("the carrier could not be told to bring the call back", error=str(error) or "no answer")
        else:
            log.info("the carrier was told to bring the call back")

    def hand_over(self, seconds: float) -> bool:
        """See `CallSession.hand_over`."""
        wait = self._streams.wait
        if not self._grace or self._life.is_ending or wait.stage is not Stage.SERVED:
            return False
        now = time.time()
        self._lost = (EndReason.SHUTDOWN, "no other process has carried on")
        self._lost_at = now - (self._streams.silent_for or 0.0)
        self.is_handed_over = True
        self._watch.hold(AWAY)
        wait.returns = counted(wait.returns, now)
        wait.open(seconds, self._on_time_over)
        self._streams.detach(AWAY, 0.0, CLOSE_RESTART)
        self._recorder.stream_changed(AWAY)
        log.info("the call is handed over: the carrier is told to open the next stream", seconds=seconds)
        return True

    def _on_time_over(self) -> None:
        if self._lost is not None:
            reason, detail = self._lost
            self._metrics.returns.labels("expired").inc()
            self._life.end(reason, detail or f"the stream did not come back within {self._patience:g} s")

    # Back

    def asked(self, ended: int, *, carrier_let_go: bool, in_transfer: bool) -> Resume:
        """The carrier asks how the phone goes on after the stream `ended`."""
        wait = self._streams.wait
        request = self._recorder.request
        over = Resume(ResumeVerdict.OVER, 0, 0.0, request)
        if self._life.is_ending:
            return over
        if self._recorder.record.state is not CallState.ACTIVE:
            return self._asked_before_the_start(ended, carrier_let_go=carrier_let_go)
        claimed = wait.claimed and wait.stage is not Stage.SERVED
        step = decide(
            ended,
            wait.stream,
            served=wait.stage is Stage.SERVED,
            claimed=claimed,
            is_certain=carrier_let_go,
            in_transfer=in_transfer,
            since_return=time.time() - (wait.returns[-1] if wait.returns else 0.0),
        )
        match step:
            case Step.OVER:
                return over
            case Step.LIVES:
                return replace(over, verdict=ResumeVerdict.LIVES)
            case Step.REPEAT:
                return Resume(ResumeVerdict.STREAM, ended + 1, time.time() + self._grace, request)
            case Step.OPEN if not self._open(ended):
                return over
        wait = self._streams.wait
        return Resume(ResumeVerdict.STREAM, wait.stream, wait.deadline, request)

    def _asked_before_the_start(self, ended: int, *, carrier_let_go: bool) -> Resume:
        wait, request = self._streams.wait, self._recorder.request
        if not wait.claimed and ended == wait.stream:
            return Resume(ResumeVerdict.STREAM, wait.stream, wait.deadline, request)
        verdict = ResumeVerdict.OVER if carrier_let_go or not wait.claimed else ResumeVerdict.LIVES
        return Resume(verdict, 0, 0.0, request)

    def _open(self, ended: int) -> bool:
        """Accept the next stream; False: the call has ended instead."""
        wait = self._streams.wait
        if wait.stage is Stage.SHARED and ended == wait.stream:
            # The document for this stream was answered before, but its socket was never opened.
            wait.returns = counted(wait.returns, time.time())
            if are_too_many(wait.returns):
                self._metrics.returns.labels("too_many").inc()
                self._life.end(EndReason.INTERRUPTED, f"{len(wait.returns)} returns within {RETURNS_WITHIN:g} s")
                return False
            wait.extend(self._grace)
            wait.sync()
            return True
        began = self.begin(EndReason.CARRIER_LOST, "the carrier follows the next element of its document")
        return began and not self._life.is_ending

    async def until_free(self) -> None:
        """A second socket came with the token of the stream that is served. Wait a moment for the first one to be lost;
        if it is silent, treat it as lost."""
        until = self._loop.time() + SILENCE_PATIENCE
        while self._streams.wait.stage is Stage.SERVED and not self._life.is_ending:
            silent = self._streams.silent_for
            if silent is None or silent >= SILENT:
                self.begin(EndReason.CARRIER_LOST, "the carrier has opened another socket")
                return
            if self._loop.time() >= until:
                return
            await asyncio.sleep(_LOOK_EVERY)

    def back(self) -> None:
        """The phone streams again."""
        if self._lost is None:
            return
        self._lost = None
        gap = max(0.0, time.time() - self._lost_at)
        self._metrics.returns.labels("taken_over" if self._is_taken else "resumed").inc()
        self._metrics.return_gap.observe(gap)
        self._is_taken = False
        self._recorder.stream_changed("resumed", gap_ms=str(round(gap * 1000)))
        log.info("the stream is back", gap_ms=round(gap * 1000))
        self._watch.resume(AWAY, 0.0)
