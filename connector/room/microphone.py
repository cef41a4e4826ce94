"""The caller's audio track: publish it, follow an admin who mutes or removes it, publish it again when permitted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog
from livekit import rtc

from connector.errors import Unavailable
from connector.room.handles import free_track
from connector.room.joining import Connection
from connector.room.media import CallerSource
from connector.room.subscriptions import Handlers

log = structlog.get_logger()

_SOURCE = rtc.TrackSource.SOURCE_MICROPHONE
_LOOK_EVERY = 0.05
_SECOND_ROUND = 0.25
"""Seconds after the first negotiation of a published track within which the SDK negotiates it a second time."""
_MOST_SETTLING = 2.0
_GIVEN_UP = 10.0
"""Seconds after which the SDK (1.1.21) gives up a negotiation."""
_FIRST_PAUSE = 0.25
_MAX_PAUSE = 5.0
_STABLE = 10.0
"""Seconds that a published track must last. If it is removed after that, it is published again without a pause."""


class Microphone:
    """The audio track of one call. `publish` on every new connection; `close` at the end of the call.

    `rate`: samples a second; `on_fault`: see `CallerSource.on_fault`.
    """

    def __init__(self, rate: int, on_fault: Callable[[str], None]) -> None:
        self._source, self._track = _voice(rate)
        self._source.on_fault = on_fault
        self._connection: Connection | None = None
        """The connection on which the track is, or will be, published."""
        self._publication: rtc.LocalTrackPublication | None = None
        self._is_spoilt = False
        """A request about the track got no answer, so its state is unknown and a new track is needed: publishing one
        track twice in a room aborts the process (SDK 1.1.21)."""
        self._is_kept = False
        """Publish the track again whenever it is permitted; False once the room is lost or about to be left."""
        self._is_muted = False
        self._published_at = 0.0
        self._pause = 0.0
        self._turn = asyncio.Lock()
        self._adjusting: asyncio.Task[None] | None = None

    @property
    def handlers(self) -> Handlers:
        """A new list each time: a stored list of bound methods would form a reference cycle with this object."""
        return [
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
        return self._publication is not None and self._connection is connection

    async def publish(self, connection: Connection) -> None:
        """Publish the track on a new connection. Raises Unavailable."""
        async with self._turn:
            self._connection, self._publication = connection, None
            await self._publish(connection)
            self._is_kept = True

    async def _publish(self, connection: Connection) -> None:
        if self._is_spoilt:
            self._track = _track_of(self._source)
        self._is_spoilt = True
        self._published_at = time.monotonic()  # For `settle`, if the call ends before the answer.
        publishing = connection.room.local_participant.publish_track(
            self._track, rtc.TrackPublishOptions(source=_SOURCE)
        )
        self._publication = await connection.ask(
            publishing, "the caller's audio track could not be published", connection.lost
        )
        self._is_spoilt = False
        self._published_at = time.monotonic()

    async def wait_until_heard(self) -> None:
        """See `RoomGateway.wait_until_heard`."""
        if self._publication is not None:
            await self._publication.wait_for_subscription()

    def detach(self) -> None:
        """The connection is lost or closed: forget it."""
        self._connection = self._publication = None
        self._is_kept = False
        if self._adjusting is not None:
            self._adjusting.cancel()
            self._adjusting = None

    async def settle(self) -> None:
        """Before the room is left: wait, for a bounded time, until the track is negotiated or the connection is lost.
        The SDK keeps a connection that is closed earlier, a megabyte or more, for 10 or 20 seconds."""
        self._is_kept = False
        connection, since = self._connection, time.monotonic() - self._published_at
        if connection is None or since >= _GIVEN_UP:
            return
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_MOST_SETTLING):
                is_new = since < _SECOND_ROUND
                while not connection.is_lost and not await self._is_negotiated(connection):
                    is_new = True
                    await asyncio.wait([connection.lost], timeout=_LOOK_EVERY)
                if is_new:
                    await asyncio.wait([connection.lost], timeout=_SECOND_ROUND)

    async def _is_negotiated(self, connection: Connection) -> bool:
        """Whether LiveKit has answered the SDK's offer of the track. Raises Unavailable."""
        looking = self._track.get_stats()
        stats = await connection.ask(looking, "the state of the caller's track could not be read", connection.lost)
        return any(stat.WhichOneof("stats") == "outbound_rtp" for stat in stats)

    async def close(self) -> None:
        """At the end of the call: free the track and its source. Without a live connection, keep them in
        `_stranded` for a later call instead."""
        connection = self._connection
        self.detach()
        if connection is None or connection.is_lost:
            self._source.take_back()
            _stranded.setdefault(self._source.rate, []).append((self._source, self._track))
        else:
            free_track(self._track)
            await self._source.close()

    # Actions of a room admin

    def _may_publish(self) -> bool:
        if self._connection is None:
            return False
        permissions = self._connection.room.local_participant.permissions
        sources = permissions.can_publish_sources
        return permissions.can_publish and (not sources or _SOURCE in sources)

    def _on_permissions(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant):
            self._adjust()

    def _on_unpublished(self, publication: rtc.LocalTrackPublication) -> None:
        if publication is self._publication:
            self._publication = None
            log.warning("the caller's track was removed from the room")
            self._adjust()

    def _adjust(self) -> None:
        if self._is_kept and (self._adjusting is None or self._adjusting.done()):
            self._adjusting = asyncio.create_task(self._until_as_permitted(), name="adjust the caller's track")

    async def _until_as_permitted(self) -> None:
        """Publish or unpublish the track until that agrees with the caller's permissions. When the caller may no
        longer publish, LiveKit removes the track; the SDK does not notice, and never publishes it again."""
        while self._is_kept and (connection := self._connection) is not None:
            try:
                async with self._turn:
                    if (self._publication is not None) == self._may_publish():
                        return
                    if self._publication is not None:
                        await self._unpublish(connection, self._publication)
                    else:
                        await self._publish_again(connection)
            except Unavailable as error:
                log.warning("the caller's track could not be published or removed, will retry", error=error.message)

    async def _unpublish(self, connection: Connection, publication: rtc.LocalTrackPublication) -> None:
        log.warning("the caller has lost the permission to publish: nobody hears it")
        self._publication, self._is_spoilt = None, True
        unpublishing = connection.room.local_participant.unpublish_track(publication.sid)
        await connection.ask(unpublishing, "the caller's track could not be unpublished", connection.lost)
        self._is_spoilt = False

    async def _publish_again(self, connection: Connection) -> None:
        if time.monotonic() - self._published_at >= _STABLE:
            self._pause = 0.0
        await asyncio.sleep(self._pause)
        self._pause = min(_MAX_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        if self._may_publish():
            await self._publish(connection)
            log.info("the caller's track is published again")

    def _on_muted(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant) and not self._is_muted:
            self._is_muted = True
            log.warning("the caller was muted by an admin of the room")

    def _on_unmuted(self, participant: rtc.Participant, _: object) -> None:
        if isinstance(participant, rtc.LocalParticipant) and self._is_muted:
            self._is_muted = False
            log.info("the caller is no longer muted by an admin of the room")


_stranded: dict[int, list[tuple[CallerSource, rtc.LocalAudioTrack]]] = {}
"""Sources and tracks, by sample rate, whose connection ended before they were unpublished; later calls use them again.
The SDK never frees such a track, and with it keeps the closed connection and its five threads. Publishing the
track again frees them (https://github.com/livekit/rust-sdks/issues/1443)."""


def _voice(rate: int) -> tuple[CallerSource, rtc.LocalAudioTrack]:
    if stranded := _stranded.get(rate):
        source, track = stranded.pop()
        if track.muted:
            track.unmute()
        return source, track
    source = CallerSource(rate)
    return source, _track_of(source)


def _track_of(source: CallerSource) -> rtc.LocalAudioTrack:
    return rtc.LocalAudioTrack.create_audio_track("phone", source.rtc_source)
