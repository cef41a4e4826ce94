"""What a room tells the call that lives in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connector.model import EndReason


class RoomListener(Protocol):
    """Called on the event loop. `room_audio` brings 20 ms of one track: int16[160] at 8 kHz, and the monotonic
    second at which it left WebRTC."""

    def room_source_added(self, source: str) -> None: ...
    def room_source_removed(self, source: str) -> None: ...
    def room_audio(self, source: str, pcm: NDArray[np.int16], at: float) -> None: ...
    def room_dtmf(self, digit: str) -> None: ...
    def room_cleared(self) -> None: ...
    def room_attributes(self, attributes: Mapping[str, str]) -> None:
        """These of the caller's attributes have changed; all of them as they are now, removed ones are empty."""
        ...

    def room_regained(self, same_room: bool) -> None:
        """The connection to LiveKit was lost and is back, and the caller is in the room again. `same_room` is false
        when LiveKit has opened another room of this name meanwhile: agents of the former one do not come by themselves.
        """
        ...

    def room_ended(self, reason: EndReason, detail: str) -> None: ...
