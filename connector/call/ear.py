"""What happens in a room, handed on to the call that lives there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.call.bridge import Bridge
from connector.call.ledger import Ledger
from connector.metrics import Metrics
from connector.model import EndReason

OnEnd = Callable[[EndReason, str], None]
OnRegained = Callable[[bool], None]


class RoomEar:
    """A `RoomListener` for one room: silent before the caller lives there (`open`), and after (`close`)."""

    def __init__(
        self, bridge: Bridge, ledger: Ledger, metrics: Metrics, on_end: OnEnd, on_regained: OnRegained
    ) -> None:
        self._bridge = bridge
        self._ledger = ledger
        self._metrics = metrics
        self._on_end = on_end
        self._on_regained = on_regained
        self._is_open = False
        self._sources: set[str] = set()
        self.ended: tuple[EndReason, str] | None = None
        """How the room ended for the caller, where it did."""

    def open(self) -> None:
        self._is_open = True
        for source in self._sources:
            self._bridge.source_added(source)

    def close(self) -> None:
        """Nothing is heard from here any more, not even that the caller was taken out."""
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
        if not self._ledger.request.dtmf:
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
            self._ledger.attributes_changed(attributes)

    def room_regained(self, same_room: bool) -> None:
        if self._is_open:
            self._on_regained(same_room)

    def room_ended(self, reason: EndReason, detail: str) -> None:
        self.ended = (reason, detail)
        if self._is_open:
            self._on_end(reason, detail)
