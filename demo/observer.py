"""A participant that only observes: it records the events of a call in the room."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

import numpy as np
from livekit import api, rtc

from carrier_simulator.moments import Moment

_LOUD = 500
"""Minimum peak of speech; the codec's comfort noise stays below."""
_AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


class Observer:
    """Observes one caller, selected by identity, in one room."""

    def __init__(self, url: str, api_key: str, api_secret: str, room: str, caller: str) -> None:
        self.agent_joined = Moment("agent joined the room")
        self.caller_seen = Moment("caller seen in the room")
        self.caller_loud = Moment("caller heard in the room")
        self.caller_gone = Moment("caller left the room")
        self.caller_kind: int | None = None
        self.digits: asyncio.Queue[str] = asyncio.Queue()
        """DTMF digits received from the caller."""
        self._url = url
        self._caller = caller
        self._room = rtc.Room()
        self._listening: list[asyncio.Task[None]] = []
        self._token = (
            api.AccessToken(api_key, api_secret)
            .with_identity("observer")
            .with_ttl(timedelta(minutes=10))
            .with_grants(api.VideoGrants(room_join=True, room=room, can_publish=False, can_publish_data=True))
            .to_jwt()
        )

    async def __aenter__(self) -> Self:
        self._room.on("participant_connected", self._on_joined)
        self._room.on("participant_disconnected", self._on_left)
        self._room.on("track_subscribed", self._on_track)
        self._room.on("sip_dtmf_received", self._on_digit)
        await self._room.connect(self._url, self._token)
        for participant in self._room.remote_participants.values():
            self._on_joined(participant)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._listening:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._room.disconnect()

    async def tell(self, topic: str, text: str) -> None:
        """Sends a data message to all participants."""
        await self._room.local_participant.publish_data(text.encode(), topic=topic)

    def _on_joined(self, participant: rtc.RemoteParticipant) -> None:
        if participant.kind == _AGENT:
            self.agent_joined.come()
        elif participant.identity == self._caller:
            self.caller_kind = participant.kind
            self.caller_seen.come()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._caller:
            self.caller_gone.come()

    def _on_track(
        self, track: rtc.Track, _publication: rtc.RemoteTrackPublication, speaker: rtc.RemoteParticipant
    ) -> None:
        if speaker.identity == self._caller and track.kind == rtc.TrackKind.KIND_AUDIO:
            self._listening.append(asyncio.create_task(self._listen(track)))

    def _on_digit(self, event: rtc.SipDTMF) -> None:
        if event.participant and event.participant.identity == self._caller:
            self.digits.put_nowait(event.digit)

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=8000, num_channels=1)
        try:
            async for event in stream:
                loudest = np.abs(np.frombuffer(event.frame.data, np.int16).astype(np.int32)).max(initial=0)
                if loudest > _LOUD:
                    self.caller_loud.come()
                    return
        finally:
            await stream.aclose()


async def participant_kinds(lkapi: api.LiveKitAPI, room: str) -> dict[str, str]:
    """Returns the participants of a room from LiveKit's API, including hidden ones: identity → kind."""
    answer = await lkapi.room.list_participants(api.ListParticipantsRequest(room=room))
    return {p.identity: api.ParticipantInfo.Kind.Name(p.kind) for p in answer.participants}
