"""The other participants' audio: to which tracks the caller is subscribed, and which of them are heard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog
from livekit import rtc
from livekit.rtc.room import EventTypes

from connector.room.events import RoomListener
from connector.room.media import AudioTap

log = structlog.get_logger()

Handlers = list[tuple[EventTypes, Callable[..., None]]]


class Subscriptions:
    """All audio tracks of the room, once the others can see the caller; heard from `listen` on.

    LiveKit tells a publisher of its first subscriber, and agents wait for that before they speak. A hidden subscriber
    does not count, and to become visible does not announce it. So nothing is subscribed before the reveal: the first
    sound comes 0.07 s after it, where a second subscription of the same track takes 0.26 s.
    """

    def __init__(self, listener: RoomListener, on_company: Callable[[], None]) -> None:
        """`on_company`: somebody else publishes."""
        self._listener = listener
        self._on_company = on_company
        self._room: rtc.Room | None = None
        self._is_seen = False
        self._rate = 0
        self._tracks: dict[str, rtc.Track] = {}
        self._taps: dict[str, AudioTap] = {}
        self.handlers: Handlers = [
            ("track_published", self._on_published),
            ("track_subscribed", self._on_subscribed),
            ("track_unsubscribed", self._on_unsubscribed),
            ("track_subscription_failed", self._on_failed),
        ]

    def attach(self, room: rtc.Room) -> None:
        """The room is joined."""
        self._room = room
        self._subscribe_to_all()

    def seen(self) -> None:
        """The others can see the caller from now on."""
        self._is_seen = True
        self._subscribe_to_all()

    def renew(self) -> None:
        """The SDK has reconnected: it announces every track before the new connection takes subscriptions."""
        self._subscribe_to_all()

    def listen(self, rate: int) -> None:
        self._rate = rate
        for sid, track in self._tracks.items():
            self._open(sid, track)

    def detach(self) -> None:
        """The room is lost or left; its tracks fall silent."""
        self._room = None
        self._tracks.clear()
        for sid in list(self._taps):
            self._close(sid)

    def _subscribe_to_all(self) -> None:
        if self._room is None:
            return
        for participant in self._room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._on_published(publication)

    def _on_published(self, publication: rtc.RemoteTrackPublication, *_: object) -> None:
        self._on_company()
        if self._is_seen and publication.kind == rtc.TrackKind.KIND_AUDIO:
            publication.set_subscribed(True)

    def _on_subscribed(self, track: rtc.Track, publication: rtc.RemoteTrackPublication, *_: object) -> None:
        if self._room is None or track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        self._tracks[publication.sid] = track
        if self._rate:
            self._open(publication.sid, track)

    def _on_unsubscribed(self, _: rtc.Track, publication: rtc.RemoteTrackPublication, *__: object) -> None:
        self._tracks.pop(publication.sid, None)
        self._close(publication.sid)

    def _on_failed(self, participant: rtc.RemoteParticipant, sid: str, error: str) -> None:
        log.warning("a track of the room cannot be heard", track=sid, identity=participant.identity, error=error)

    def _open(self, sid: str, track: rtc.Track) -> None:
        if sid in self._taps:
            self._taps.pop(sid).close()
        else:
            self._listener.room_source_added(sid)
        self._taps[sid] = AudioTap(track, partial(self._listener.room_audio, sid), self._rate)

    def _close(self, sid: str) -> None:
        tap = self._taps.pop(sid, None)
        if tap is not None:
            tap.close()
            self._listener.room_source_removed(sid)
