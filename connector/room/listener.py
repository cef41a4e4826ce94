"""Events that a room reports to its call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connector.model.end_reason import EndReason


class Kind(StrEnum):
    """Kinds of participants, from the caller's point of view."""

    AGENT = "agent"
    PERSON = "person"
    """Any other participant that can be heard: a person, an ingress."""
    PHONE = "phone"
    RECORDER = "recorder"
    """An egress: it does not count as company for the caller."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """Another participant in the caller's room. Hidden participants are not visible."""

    identity: str
    kind: Kind
    agent_name: str = ""
    """For an agent: the name by which it was dispatched, if LiveKit reports it."""
    has_audio: bool = False
    """It publishes an audio track."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A participant has left the caller's room."""

    identity: str
    on_purpose: bool
    """It left by itself or was removed. False: its connection, its process or its server was lost."""


class RoomListener(Protocol):
    """Called on the event loop. `room_audio` delivers 20 ms of one track (int16[160] at 8 kHz); `at` is the monotonic
    time, in seconds, at which the frame left WebRTC."""

    def room_source_added(self, source: str) -> None: ...
    def room_source_removed(self, source: str) -> None: ...
    def room_audio(self, source: str, pcm: NDArray[np.int16], at: float) -> None: ...
    def room_dtmf(self, digit: str) -> None: ...
    def room_cleared(self) -> None: ...
    def room_attributes(self, attributes: Mapping[str, str]) -> None:
        """The caller's attributes that have changed, with their new values; a removed one has the value ""."""
        ...

    def room_ended(self, reason: EndReason, detail: str) -> None: ...

    def room_people(self, people: Sequence[Occupant], gone: Departure | None) -> None:
        """The other participants now in the room; `gone`: the one that has just left, if any."""
        ...

    def room_lost(self) -> None:
        """The connection to LiveKit is lost: the state of the room is unknown until `room_regained`."""
        ...

    def room_regained(self, same_room: bool, may_be_deleted: bool) -> None:
        """The connection to LiveKit is back, and the caller is in the room again. `same_room` is False when LiveKit has
        created a new room of this name: the agents of the old one do not come by themselves. `may_be_deleted`: the old
        room was already gone when the connection broke, as when somebody ends a call by deleting its room.
        """
        ...
