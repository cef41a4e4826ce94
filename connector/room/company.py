"""Who else is in a caller's room, as LiveKit's SDK sees it, told to the call on every change."""

from __future__ import annotations

from collections.abc import Callable

from livekit import rtc
from livekit.rtc.room import EventTypes

from connector.room.events import Departure, Kind, Occupant, RoomListener

_KINDS = {
    rtc.ParticipantKind.PARTICIPANT_KIND_AGENT: Kind.AGENT,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR: Kind.PHONE,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP: Kind.PHONE,
    rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS: Kind.RECORDER,
}
_AGENT_NAMES = ("lk.agent_name", "lk.agent.name")
"""Attributes in which livekit-server, and livekit-agents, put the name that an agent was dispatched by."""
_ON_PURPOSE = frozenset(
    {
        rtc.DisconnectReason.CLIENT_INITIATED,
        rtc.DisconnectReason.DUPLICATE_IDENTITY,
        rtc.DisconnectReason.PARTICIPANT_REMOVED,
        rtc.DisconnectReason.ROOM_DELETED,
        rtc.DisconnectReason.ROOM_CLOSED,
        rtc.DisconnectReason.USER_UNAVAILABLE,
        rtc.DisconnectReason.USER_REJECTED,
    }
)
"""All others are a lost connection, process or server: an agent killed by SIGKILL is gone after some 20 s, with
CONNECTION_TIMEOUT. Nothing tells of it earlier: LiveKit reports no lost quality for one that says nothing."""


class Company:
    """The others in one room; `listener` hears of them from `begin` on."""

    def __init__(self, listener: RoomListener) -> None:
        self._listener = listener
        self._room: rtc.Room | None = None

    def begin(self, room: rtc.Room) -> None:
        """The room is joined, or joined again."""
        self._room = room
        self.tell()

    def end(self) -> None:
        self._room = None

    def listeners(self) -> list[tuple[EventTypes, Callable[..., None]]]:
        """What to register with the room."""
        return [
            ("participant_connected", self._on_change),
            ("participant_attributes_changed", self._on_attributes),
            ("track_published", self._on_change),
            ("track_unpublished", self._on_change),
            ("participant_disconnected", self._on_left),
        ]

    def tell(self, gone: Departure | None = None) -> None:
        if self._room is not None:
            people = [_occupant(participant) for participant in self._room.remote_participants.values()]
            self._listener.room_people(people, gone)

    def _on_change(self, *_: object) -> None:
        self.tell()

    def _on_attributes(self, _: dict[str, str], participant: rtc.Participant) -> None:
        if not isinstance(participant, rtc.LocalParticipant):
            self.tell()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        self.tell(Departure(participant.identity, participant.disconnect_reason in _ON_PURPOSE))


def _occupant(participant: rtc.RemoteParticipant) -> Occupant:
    return Occupant(
        identity=participant.identity,
        kind=_KINDS.get(participant.kind, Kind.PERSON),
        agent_name=next((name for key in _AGENT_NAMES if (name := participant.attributes.get(key))), ""),
        has_audio=any(track.kind == rtc.TrackKind.KIND_AUDIO for track in participant.track_publications.values()),
    )
