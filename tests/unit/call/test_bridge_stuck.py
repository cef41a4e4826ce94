"""What the bridge concludes from marks that do not come back, on a socket that takes everything."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import structlog

from connector.call.media.bridge import Bridge
from connector.call.media.marks import PROBE_EVERY, PROBE_FOR, Marks
from connector.carriers.codec import Codec
from connector.carriers.events import MarkReached
from connector.metrics import Metrics
from tests.contract.dialects import Dialect, PlivoDialect, TelnyxDialect, TwilioDialect
from tests.unit.call.clock import Clock
from tests.unit.call.fakes import FakeCodec

LOUD = np.full(160, 4000, np.int16)
SILENT = np.zeros(160, np.int16)
FRAME = 0.02

Loses = Callable[[int, str], bool]
"""Whether the mark is lost which is the so-manieth to be returned, and has this name."""


class Voice:
    def capture(self, pcm: bytes) -> None: ...

    def take_dropped(self) -> int:
        return 0


class MediaStream:
    """Somebody who talks into a bridge, and a carrier that plays it, a way of `way` seconds off."""

    def __init__(
        self,
        loses: Loses = lambda *_: False,
        way: float = 0.05,
        clear_returns_marks: bool = True,
        dialect: Dialect | None = None,
    ) -> None:
        """`dialect`: whose messages are written and read, by the carrier's own codec."""
        self.clock = Clock(0.0)
        self._dialect = dialect
        self._codec: Codec = FakeCodec() if dialect is None else dialect.codec()
        if dialect is not None:
            for text in (*dialect.opening(), dialect.start()):
                self._codec.receive(text)
        self.bridge = Bridge(self._codec, Voice(), Metrics(), self.clock, self.clock.later)
        self.bridge.open_to_carrier()
        self.bridge.source_added("talker")
        self.loses = loses
        self.way = way
        self.is_stuck = False
        """A proxy takes in whatever it is given, and passes nothing on."""
        self.shuffles = False
        """Marks come back in another order, and twice."""
        self.heard: list[float] = []
        """Moments at which the caller heard 20 ms."""
        self.sent: list[str] = []
        self.clears = 0
        self._clear_returns_marks = clear_returns_marks
        self._in_proxy: list[str] = []
        self._arriving: list[tuple[float, int, str]] = []
        self._buffer: list[str] = []
        self._returning: list[tuple[float, int, str]] = []
        self._count = 0
        self._marks = 0

    def goes_on(self, seconds: float, pcm: np.ndarray = LOUD) -> list[str]:
        """The same for so long; what is sent meanwhile."""
        before = len(self.sent)
        for _ in range(round(seconds / FRAME)):
            self.bridge.from_room("talker", pcm, self.clock.now)
            self.take()
            self._play()
            self.clock.advance(FRAME)
        return self.sent[before:]

    def take(self) -> None:
        """The socket takes all that waits."""
        outbox = self.bridge.outbox
        texts = [self._as_the_carrier_reads_it(message.text) for message in outbox._waiting]
        outbox._waiting.clear()
        outbox._seconds, outbox._tones = 0.0, 0
        self.sent += texts
        self._in_proxy += texts

    def _as_the_carrier_reads_it(self, text: str) -> str:
        """In the fake codec's words."""
        if self._dialect is None:
            return text
        sent = self._dialect.read(text)
        return " ".join(filter(None, (sent.kind, sent.name or (str(len(sent.payload)) if sent.payload else ""))))

    def _comes_back(self, name: str) -> None:
        text = f"mark {name}" if self._dialect is None else self._dialect.mark(name)
        event = self._codec.receive(text)
        assert isinstance(event, MarkReached)
        self.bridge.mark_reached(event.name)

    def _play(self) -> None:
        now = self.clock.now
        if not self.is_stuck:
            for text in self._in_proxy:
                self._later(self._arriving, now + self.way, text)
            self._in_proxy.clear()
        while self._arriving and self._arriving[0][0] <= now + 1e-6:
            self._arrive(heapq.heappop(self._arriving)[2])
        while self._buffer and self._buffer[0].startswith("mark"):
            self._return(self._buffer.pop(0))
        if self._buffer:
            self._buffer.pop(0)
            self.heard.append(now)
        while self._returning and self._returning[0][0] <= now + 1e-6:
            self._comes_back(heapq.heappop(self._returning)[2])

    def _arrive(self, text: str) -> None:
        if text == "clear":
            self.clears += 1
            dropped, self._buffer = self._buffer, []
            for each in dropped:
                if each.startswith("mark") and self._clear_returns_marks:
                    self._return(each)
        elif text.startswith("mark"):
            self._buffer.append(text)
        else:
            self._buffer += ["audio"] * (int(text.split()[1]) // 160)

    def _return(self, mark: str) -> None:
        name = mark.removeprefix("mark ")
        self._marks += 1
        if self.loses(self._marks, name):
            return
        self._later(self._returning, self.clock.now + self.way, name)
        if self.shuffles:
            self._later(self._returning, self.clock.now + self.way + 1.3 * (self._marks % 2), name)

    def _later(self, queue: list[tuple[float, int, str]], at: float, text: str) -> None:
        self._count += 1
        heapq.heappush(queue, (at, self._count, text))

    def gets_stuck(self) -> None:
        """Until the bridge has noticed."""
        self.goes_on(3)
        self.is_stuck = True
        marks = self.bridge._to_carrier._marks
        while not marks.is_stuck:
            self.goes_on(FRAME)

    def longest_hole(self) -> float:
        return max(np.diff(self.heard), default=0.0)


def lost(*numbers: int) -> Loses:
    return lambda number, _: number in numbers


# Marks that are lost


@pytest.mark.parametrize(
    "numbers", [(1,), (2,), (5,), (1, 2), (3, 4), (1, 3, 5, 7, 9, 11), (2, 3, 4, 5), tuple(range(2, 60, 2))], ids=str
)
@pytest.mark.parametrize("way", [0.02, 0.3])
def test_marks_that_are_lost_are_not_heard(numbers: Sequence[int], way: float) -> None:
    line = MediaStream(lost(*numbers), way)
    line.goes_on(12)
    assert line.clears == 0
    assert line.bridge.dropped_frames == 0
    assert line.longest_hole() == pytest.approx(FRAME)


def test_the_last_mark_before_a_pause_is_lost_and_the_next_sentence_is_heard_from_its_first_word() -> None:
    line = MediaStream()
    line.goes_on(3.0)
    line.loses = lambda *_: True
    line.goes_on(1.2)
    line.loses = lambda *_: False
    line.goes_on(60, SILENT)
    heard = len(line.heard)
    line.goes_on(3)
    assert (len(line.heard) - heard) * FRAME == pytest.approx(3, abs=0.2)
    assert line.clears == 0


def test_marks_that_come_doubled_and_out_of_order_are_not_heard() -> None:
    line = MediaStream()
    line.shuffles = True
    line.goes_on(20)
    assert line.clears == 0
    assert line.longest_hole() == pytest.approx(FRAME)


def test_the_marks_and_the_first_probe_are_lost() -> None:
    line = MediaStream()
    line.goes_on(2)
    cleared_at: list[float] = []

    def loses(_: int, __: str) -> bool:
        """All, until the second after the clear."""
        if line.clears and not cleared_at:
            cleared_at.append(line.clock.now)
        return not cleared_at or line.clock.now < cleared_at[0] + 0.2

    line.loses = loses
    line.goes_on(12)
    assert line.clears == 1
    assert line.longest_hole() < PROBE_EVERY + 0.5
    line.heard.clear()
    line.goes_on(5)
    assert len(line.heard) * FRAME == pytest.approx(5, abs=FRAME)


@pytest.mark.parametrize("clear_returns_marks", [True, False])
def test_a_carrier_that_returns_no_mark_any_more_is_soon_taken_for_such_a_one(clear_returns_marks: bool) -> None:
    line = MediaStream(clear_returns_marks=clear_returns_marks)
    line.goes_on(3)
    line.loses = lambda *_: True
    line.goes_on(60)
    assert line.clears == 1
    assert line.longest_hole() < PROBE_FOR + 0.5
    line.heard.clear()
    line.goes_on(10)
    assert len(line.heard) * FRAME == pytest.approx(10, abs=FRAME)


def test_a_carrier_that_returns_marks_again_is_believed_again() -> None:
    line = MediaStream()
    line.goes_on(3)
    line.loses = lambda *_: True
    line.goes_on(20)
    line.loses = lambda *_: False
    line.goes_on(5)
    line.is_stuck = True
    line.goes_on(10)
    assert line.bridge.dropped_frames > PROBE_FOR / FRAME + 1 / FRAME


def test_a_carrier_that_has_never_returned_a_mark_is_not_taken_for_stuck() -> None:
    line = MediaStream(lambda *_: True)
    sent = line.goes_on(200)
    assert "clear" not in sent
    assert line.bridge.dropped_frames == 0
    assert len(line.bridge._to_carrier._marks._out) <= 64


@pytest.mark.parametrize("way", [1.5, 2.5, 5.0])
def test_marks_that_are_always_late_cost_a_hole_or_two_and_then_none(way: float) -> None:
    line = MediaStream(way=way)
    line.goes_on(60)
    line.heard.clear()
    dropped = line.bridge.dropped_frames
    sent = line.goes_on(60)
    assert line.bridge.dropped_frames == dropped
    assert line.longest_hole() == pytest.approx(FRAME)
    assert sum(text.startswith("mark") for text in sent) < 60 * 8


# A path that is stuck


def test_nothing_is_sent_into_a_path_that_is_stuck_but_probes() -> None:
    line = MediaStream()
    line.gets_stuck()
    sent = line.goes_on(1.1)
    assert {text.split()[0] for text in sent} == {"mark"}
    assert len(sent) == 2


@pytest.mark.parametrize("stall", [2.5, 3.5, 6, 30])
def test_after_a_stall_the_caller_hears_what_is_said_now(stall: float) -> None:
    line = MediaStream()
    line.goes_on(3)
    line.is_stuck = True
    line.goes_on(stall)
    line.is_stuck = False
    line.heard.clear()
    line.goes_on(1.0)
    assert len(line._buffer) * FRAME < 0.2, "no delay stays"
    assert line.heard
    line.heard.clear()
    line.goes_on(5)
    assert len(line.heard) * FRAME == pytest.approx(5, abs=2 * FRAME)


def test_it_can_get_stuck_again() -> None:
    line = MediaStream()
    for _ in range(3):
        line.gets_stuck()
        line.is_stuck = False
        line.goes_on(0.5)
    assert line.clears == 3


def test_the_room_may_be_silent_while_the_path_is_probed() -> None:
    line = MediaStream()
    line.gets_stuck()
    line.goes_on(PROBE_FOR, SILENT)
    line.is_stuck = False
    line.goes_on(1.0, SILENT)
    line.heard.clear()
    line.goes_on(2)
    assert len(line.heard) * FRAME == pytest.approx(2, abs=0.1)


def test_a_clear_that_somebody_asks_for_does_not_lose_the_mark_that_is_waited_for() -> None:
    line = MediaStream()
    line.gets_stuck()
    line.bridge.clear()
    sent = line.goes_on(FRAME)
    assert [text.split()[0] for text in sent] == ["clear", "mark"]
    line.is_stuck = False
    line.heard.clear()
    line.goes_on(1)
    assert len(line.heard) * FRAME > 0.7


def test_clears_that_somebody_asks_for_again_and_again_do_not_keep_the_path_closed() -> None:
    line = MediaStream()
    line.gets_stuck()
    line.loses = lambda *_: True
    line.is_stuck = False
    for _ in range(40):
        line.bridge.clear()
        line.goes_on(PROBE_EVERY - 0.1)
    line.heard.clear()
    line.goes_on(1)
    assert len(line.heard) * FRAME == pytest.approx(1, abs=0.1)


def test_digits_that_are_played_while_the_path_is_probed_are_heard() -> None:
    line = MediaStream()
    line.gets_stuck()
    line.heard.clear()
    assert line.bridge.play_tones("12")
    line.goes_on(0.5)
    line.is_stuck = False
    line.goes_on(0.5, SILENT)
    assert len(line.heard) * FRAME == pytest.approx(0.44, abs=0.02)


def test_digits_that_are_played_after_the_probes_were_given_up_are_heard() -> None:
    line = MediaStream()
    line.goes_on(3)
    line.is_stuck = True
    line.goes_on(9)
    assert line.bridge.play_tones("12")
    line.goes_on(0.44, SILENT)
    line.is_stuck = False
    line.heard.clear()
    line.goes_on(8, SILENT)
    assert len(line.heard) * FRAME >= 0.44


def test_a_probe_that_waits_for_the_socket_is_not_taken_for_lost() -> None:
    line = MediaStream()
    line.gets_stuck()
    for _ in range(500):  # The socket takes nothing any more.
        line.bridge.outbox.put_mark("mark waits")
        line.bridge.from_room("talker", LOUD, line.clock.now)
        line.clock.advance(FRAME)
    assert len(line.bridge.outbox) in (499, 500)
    assert line.bridge._to_carrier._marks.is_stuck


def test_the_log_says_when_the_ear_was_closed_and_opened_and_whose() -> None:
    line = MediaStream()
    with structlog.testing.capture_logs() as told:
        line.gets_stuck()
        line.goes_on(0.8)
        line.is_stuck = False
        line.gets_stuck()
        line.goes_on(PROBE_FOR + 0.1)
    events = [entry["event"].split(":")[0] for entry in told]
    assert events == ["no audio is sent to the phone", "audio is sent to the phone again"] * 2
    assert all("call_id" in entry for entry in told)
    assert told[1]["seconds"] == pytest.approx(1.0, abs=0.3)


def test_a_socket_that_takes_nothing_is_told_of_once() -> None:
    line = MediaStream()
    with structlog.testing.capture_logs() as told:
        for _ in range(100):
            line.bridge.from_room("talker", LOUD, line.clock.now)
            line.clock.advance(FRAME)
        line.take()
        line.goes_on(0.1)
    assert [entry["event"].split(":")[0] for entry in told] == [
        "audio for the phone is dropped",
        "audio is sent to the phone again",
    ]


def test_a_mark_that_returns_settles_all_before_it() -> None:
    marks = Marks()
    names = [marks.mark(at) for at in (0.0, 1.0, 2.0)]
    marks.returned(names[1], 2.5)
    assert marks.lag == pytest.approx(1.5)
    assert list(marks._out) == [names[2]]


# In each carrier's own messages


class Case:
    """A carrier; Plivo returns no checkpoint that a `clearAudio` has dropped."""

    def __init__(self, dialect: type[TwilioDialect | TelnyxDialect | PlivoDialect], returns: bool) -> None:
        self._dialect = dialect
        self._returns = returns
        self.name = dialect.name

    def line(self) -> MediaStream:
        return MediaStream(dialect=self._dialect(), clear_returns_marks=self._returns)


CARRIERS = [Case(TwilioDialect, True), Case(TelnyxDialect, True), Case(PlivoDialect, False)]


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda case: case.name)
def test_a_carrier_s_path_gets_stuck_is_probed_and_opens_again(carrier: Case) -> None:
    line = carrier.line()
    for _ in range(2):
        line.gets_stuck()
        sent = line.goes_on(1.1)
        assert {text.split()[0] for text in sent} == {"mark"}
        assert len(sent) == 2
        line.is_stuck = False
        line.goes_on(1.0)
        line.heard.clear()
        line.goes_on(5)
        assert len(line.heard) * FRAME == pytest.approx(5, abs=2 * FRAME)
    assert line.clears == 2


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda case: case.name)
def test_a_carrier_whose_marks_are_lost_is_heard_again_in_bounded_time(carrier: Case) -> None:
    line = carrier.line()
    line.goes_on(3)
    line.loses = lambda *_: True
    line.goes_on(60)
    assert line.clears == 1
    assert line.longest_hole() < PROBE_FOR + 0.5
    line.heard.clear()
    line.goes_on(10)
    assert len(line.heard) * FRAME == pytest.approx(10, abs=FRAME)
