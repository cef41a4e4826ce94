"""Passes the events of a room to the call in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.call.media.bridge import Bridge
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.metrics import Metrics
from connector.model.end_reason import EndReason
from connector.room.listener import Departure, Occupant

OnRoomEnd = Callable[[EndReason, str], None]


class RoomEvents:
    """A `RoomListener` for one room. It passes events on only between `open` and `close`, while the caller is in it."""

    def __init__(
        self, bridge: Bridge, recorder: CallRecorder, metrics: Metrics, on_end: OnRoomEnd, watch: CallWatch
    ) -> None:
        self._bridge = bridge
        self._recorder = recorder
        self._metrics = metrics
        self._on_end = on_end
        self._watch = watch
        self._people: Sequence[Occupant] = ()
        self._is_open = False
        self._is_lost = False
        self._sources: set[str] = set()
        self.has_ended = asyncio.Event()
        self.ended: tuple[EndReason, str] | None = None
        """Reason and detail if the room has ended for the caller, else None."""

    def speak_to(self, bridge: Bridge) -> None:
        """Send the room's audio to this bridge from now on."""
        self._bridge = bridge
        if self._is_open:
            for source in self._sources:
                bridge.source_added(source)

    def open(self) -> None:
        self._is_open = True
        for source in self._sources:
            self._bridge.source_added(source)
        self._watch.people(self._people, None)
        if self._is_lost:
            self._watch.lost()

    def close(self) -> None:
        """Pass no more events on, not even the removal of the caller from the room."""
        if self._is_open:
            for source in self._sources:
                self._bridge.source_removed(source)
        self._is_open = False

    def room_source_added(self, source: str) -> None:
        self._sources.add(source)
        if self._is_open:
            self._bridge.source_added(source)

    def room_source_removed(self, source: str) -> None:
        self._sources.discard(source)
        if self._is_open:
            self._bridge.source_removed(source)

    def room_audio(self, source: str, pcm: NDArray[np.int16], at: float) -> None:
        if self._is_open:
            self._bridge.from_room(source, pcm, at)

    def room_dtmf(self, digit: str) -> None:
        if not self._is_open:
            return
        if not self._recorder.request.dtmf:
            self._metrics.refused.labels("dtmf", "off").inc()
        elif len(digit) != 1 or digit not in dtmf.DIGITS:
            self._metrics.refused.labels("dtmf", "unknown_digit").inc()
        elif not self._bridge.play_tones(digit):
            self._metrics.refused.labels("dtmf", "too_many").inc()
        else:
            self._metrics.dtmf.labels("to_carrier").inc()

    def room_cleared(self) -> None:
        if self._is_open:
            self._bridge.clear()

    def room_attributes(self, attributes: Mapping[str, str]) -> None:
        if self._is_open:
            self._recorder.attributes_changed(attributes)

    def room_people(self, people: Sequence[Occupant], gone: Departure | None) -> None:
        self._people = people
        if self._is_open:
            self._watch.people(people, gone)

    def room_lost(self) -> None:
        self._is_lost = True
        if self._is_open:
            self._watch.lost()

    def room_regained(self, same_room: bool, may_be_deleted: bool) -> None:
        self._is_lost = False
        if self._is_open:
            self._watch.regained(same_room, may_be_deleted)

    def room_ended(self, reason: EndReason, detail: str) -> None:
        self.ended = (reason, detail)
        self.has_ended.set()
        if self._is_open:
            self._on_end(reason, detail)
