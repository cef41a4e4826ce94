"""What a room tells the call that lives in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connector.model import EndReason


class Kind(StrEnum):
    """What a participant is, as far as a caller is concerned."""

    AGENT = "agent"
    PERSON = "person"
    """Anybody, or anything, that can be heard and is neither of the others: a person, an ingress."""
    PHONE = "phone"
    RECORDER = "recorder"
    """An egress: it is no company."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """Somebody else in the caller's room. Hidden participants are not seen."""

    identity: str
    kind: Kind
    agent_name: str = ""
    """Of an agent, where LiveKit tells it: the name by which it was dispatched."""
    has_audio: bool = False
    """It publishes an audio track."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Somebody has left the caller's room."""

    identity: str
    on_purpose: bool
    """By its own will or somebody's request; else its connection, its process or its server was lost."""


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

    def room_ended(self, reason: EndReason, detail: str) -> None: ...

    def room_people(self, people: Sequence[Occupant], gone: Departure | None) -> None:
        """Who else is in the room now; `gone`: who has just left it."""
        ...

    def room_lost(self) -> None:
        """The connection to LiveKit is lost: nothing is known of the room until `room_regained`."""
        ...

    def room_regained(self, same_room: bool, may_be_deleted: bool) -> None:
        """The connection to LiveKit was lost and is back, and the caller is in the room again. `same_room` is false
        when LiveKit has opened another room of this name meanwhile: agents of the former one do not come by themselves.
        `may_be_deleted`: the former one was gone at once, as when somebody ends a call by deleting its room.
        """
        ...
