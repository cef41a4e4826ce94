"""Who counts as somebody else in the caller's room."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from livekit import rtc

from connector.room.listener import Departure, Kind, Occupant, RoomListener
from connector.room.participants import RoomParticipants

AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
PERSON = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD


def participant(identity: str, kind: Any = AGENT, *, audio: bool = False, **attributes: str) -> Any:
    tracks = {"TR_1": SimpleNamespace(kind=rtc.TrackKind.KIND_AUDIO)} if audio else {}
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return SimpleNamespace(identity=identity, kind=kind, attributes=named, track_publications=tracks)


def people(*participants: Any) -> list[Occupant]:
    told: list[Sequence[Occupant]] = []

    class Listener:
        def room_people(self, people: Sequence[Occupant], gone: Departure | None) -> None:
            told.append(people)

    company = RoomParticipants(cast(RoomListener, Listener()))
    company.begin(cast(rtc.Room, SimpleNamespace(remote_participants={one.identity: one for one in participants})))
    return list(told[-1])


def test_an_avatar_speaks_for_its_agent_and_is_nobody_by_itself() -> None:
    avatar = participant("avatar", audio=True, lk__publish_on_behalf="agent-1")
    agent = participant("agent-1", lk__agent_name="support")
    assert people(agent, avatar) == [Occupant("agent-1", Kind.AGENT, "support", has_audio=True)]
    assert people(avatar) == []
    silent = participant("avatar", lk__publish_on_behalf="agent-1")
    assert people(agent, silent) == [Occupant("agent-1", Kind.AGENT, "support", has_audio=False)]


def test_a_person_with_the_attribute_is_a_person() -> None:
    (one,) = people(participant("ann", PERSON, audio=True, lk__publish_on_behalf="agent-1"))
    assert (one.kind, one.has_audio) == (Kind.PERSON, True)
