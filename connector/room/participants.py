"""Reports the other participants of a caller's room to the call on every change, as LiveKit's SDK sees them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from livekit import rtc
from livekit.rtc.room import EventTypes

from connector.room.listener import Departure, Kind, Occupant, RoomListener

_KINDS = {
    rtc.ParticipantKind.PARTICIPANT_KIND_AGENT: Kind.AGENT,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR: Kind.PHONE,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP: Kind.PHONE,
    rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS: Kind.RECORDER,
}
_AGENT_NAMES = ("lk.agent_name", "lk.agent.name")
"""Attributes in which livekit-server and livekit-agents put the dispatch name of an agent."""
_ON_BEHALF = "lk.publish_on_behalf"
"""Attribute of an avatar, which livekit-agents lets join as an agent: the identity of the agent it represents."""
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
"""All other reasons mean a lost connection, process or server. An agent killed by SIGKILL is reported after about 20 s,
with CONNECTION_TIMEOUT. There is no earlier sign: LiveKit reports no lost quality for a silent participant."""


class RoomParticipants:
    """The other participants of one room; `listener` is told of them from `begin` on."""

    def __init__(self, listener: RoomListener) -> None:
        self._listener = listener
        self._room: rtc.Room | None = None

    def begin(self, room: rtc.Room) -> None:
        """Begin to report, after each join."""
        self._room = room
        self.tell()

    def end(self) -> None:
        self._room = None

    def listeners(self) -> list[tuple[EventTypes, Callable[..., None]]]:
        """The event handlers to register with the room."""
        return [
            ("participant_connected", self._on_change),
            ("participant_attributes_changed", self._on_attributes),
            ("track_published", self._on_change),
            ("track_unpublished", self._on_change),
            ("participant_disconnected", self._on_left),
        ]

    def tell(self, gone: Departure | None = None) -> None:
        if self._room is not None:
            self._listener.room_people(_people(self._room.remote_participants.values()), gone)

    def _on_change(self, *_: object) -> None:
        self.tell()

    def _on_attributes(self, _: dict[str, str], participant: rtc.Participant) -> None:
        if not isinstance(participant, rtc.LocalParticipant):
            self.tell()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        self.tell(Departure(participant.identity, participant.disconnect_reason in _ON_PURPOSE))


def _people(participants: Iterable[rtc.RemoteParticipant]) -> list[Occupant]:
    """An avatar does not count as a participant: its audio counts as the audio of its agent. Without that agent it is
    ignored."""
    everybody = list(participants)
    avatars = {one.identity: whose for one in everybody if (whose := _speaks_for(one))}
    spoken_for = {avatars[one.identity] for one in everybody if one.identity in avatars and _has_audio(one)}
    return [_occupant(one, spoken_for) for one in everybody if one.identity not in avatars]


def _speaks_for(participant: rtc.RemoteParticipant) -> str:
    """For an avatar, the identity of its agent; else ""."""
    is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
    return participant.attributes.get(_ON_BEHALF, "") if is_agent else ""


def _has_audio(participant: rtc.RemoteParticipant) -> bool:
    return any(track.kind == rtc.TrackKind.KIND_AUDIO for track in participant.track_publications.values())


def _occupant(participant: rtc.RemoteParticipant, spoken_for: Collection[str]) -> Occupant:
    return Occupant(
        identity=participant.identity,
        kind=_KINDS.get(participant.kind, Kind.PERSON),
        agent_name=next((name for key in _AGENT_NAMES if (name := participant.attributes.get(key))), ""),
        has_audio=_has_audio(participant) or participant.identity in spoken_for,
    )
