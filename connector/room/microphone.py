"""The caller's audio track in a room: published, muted by an admin, taken away, given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from livekit import rtc

from connector.errors import Unavailable
from connector.room.joining import Connection
from connector.room.media import CallerSource
from connector.room.subscriptions import Handlers

log = structlog.get_logger()

_SOURCE = rtc.TrackSource.SOURCE_MICROPHONE
_FIRST_PAUSE = 0.25
_MAX_PAUSE = 5.0
_STABLE = 10.0
"""Seconds after which a track that is taken away once more is published again at once."""


class Microphone:
    """One call's voice. `publish` in each room that it comes into; `close` at its end."""

    def __init__(self, rate: int, on_fault: Callable[[str], None]) -> None:
        self._source, self._track = _voice(rate)
        self._source.on_fault = on_fault
        self._connection: Connection | None = None
        """Where the track is published, or is to be."""
        self._publication: rtc.LocalTrackPublication | None = None
        self._is_published = False
        self._published_at = 0.0
        self._pause = 0.0
        self._again: asyncio.Task[None] | None = None
        self.handlers: Handlers = [
            ("local_track_unpublished", self._on_unpublished),
            ("participant_permissions_changed", self._on_permissions),
            ("track_muted", self._on_muted),
            ("track_unmuted", self._on_unmuted),
        ]

    def capture(self, pcm: bytes) -> None:
        self._source.capture(pcm)

    def take_dropped(self) -> int:
        dropped, self._source.dropped = self._source.dropped, 0
        return dropped

    def is_published_in(self, connection: Connection) -> bool:
        return self._is_published and self._connection is connection

    async def publish(self, connection: Connection) -> None:
        """Raises Unavailable."""
        self._connection, self._is_published = connection, False
        participant = connection.room.local_participant
        options = rtc.TrackPublishOptions(source=_SOURCE)
        self._publication = await connection.ask(
            participant.publish_track(self._track, options),
            "the caller's audio track could not be published",
            connection.lost,
        )
        self._is_published, self._published_at = True, time.monotonic()

    async def wait_until_heard(self) -> None:
        if self._publication is not None:
            await self._publication.wait_for_subscription()

    def detach(self) -> None:
        """The room is lost."""
        self._connection, self._publication, self._is_published = None, None, False
        if self._again is not None:
            self._again.cancel()
            self._again = None

    async def close(self) -> None:
        """The call has left, or is about to: the track of a room that is still connected ends with it."""
        connection = self._connection
        self.detach()
        if connection is None or connection.is_lost:
            self._source.take_back()
            _stranded.setdefault(self._source.rate, []).append((self._source, self._track))
        else:
            await self._source.close()

    # What an admin may do

    def _may_publish(self) -> bool:
        if self._connection is None:
            return False
        permissions = self._connection.room.local_participant.permissions
        sources = permissions.can_publish_sources
        return permissions.can_publish and (not sources or _SOURCE in sources)

    def _on_unpublished(self, _: rtc.LocalTrackPublication) -> None:
        if self._connection is None or not self._is_published:
            return
        self._is_published = False
        log.warning("the caller's track was taken out of the room", may_publish=self._may_publish())
        self._publish_again()

    def _on_permissions(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant) and self._connection is not None and not self._is_published:
            self._publish_again()

    def _publish_again(self) -> None:
        if self._may_publish() and (self._again is None or self._again.done()):
            self._again = asyncio.create_task(self._until_published(), name="publish the caller again")

    async def _until_published(self) -> None:
        if time.monotonic() - self._published_at >= _STABLE:
            self._pause = 0.0
        while (connection := self._connection) is not None and self._may_publish():
            await asyncio.sleep(self._pause)
            self._pause = min(_MAX_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
            try:
                await self.publish(connection)
            except Unavailable as error:
                log.warning("the caller's track is not published again yet", error=error.message)
            else:
                log.info("the caller's track is published again")
                return

    def _on_muted(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant):
            log.warning("the caller was muted by an admin of the room")

    def _on_unmuted(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant):
            log.info("the caller is no longer muted by an admin of the room")


_stranded: dict[int, list[tuple[CallerSource, rtc.LocalAudioTrack]]] = {}
"""Voices of rooms that LiveKit ended, by their rate, for the next calls. The SDK never lets go of a track that was
published at such an end, and with it keeps a closed connection and its five threads; to publish the track once
more frees them (https://github.com/livekit/rust-sdks/issues/1443)."""


def _voice(rate: int) -> tuple[CallerSource, rtc.LocalAudioTrack]:
    if stranded := _stranded.get(rate):
        return stranded.pop()
    source = CallerSource(rate)
    return source, rtc.LocalAudioTrack.create_audio_track("phone", source.rtc_source)
