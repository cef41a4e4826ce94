"""The other participants' audio: subscribes to their tracks and delivers the frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog
from livekit import rtc
from livekit.rtc.room import EventTypes

from connector.room.listener import RoomListener
from connector.room.media import AudioTap

log = structlog.get_logger()

Handlers = list[tuple[EventTypes, Callable[..., None]]]


class Subscriptions:
    """Subscribes to all audio tracks of the room once the caller is visible; delivers audio from `listen` on.

    LiveKit notifies a publisher of its first subscriber, and agents wait for that before they speak. A hidden
    subscriber does not count, and when it becomes visible, there is no notification. So there is no subscription
    before the reveal: the first audio comes 0.07 s after it; a second subscription of a track would take 0.26 s.
    """

    def __init__(self, listener: RoomListener, on_company: Callable[[], None]) -> None:
        """`on_company` is called when another participant publishes a track."""
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
        """The caller has joined `room`."""
        self._room = room
        self._subscribe_to_all()

    def seen(self) -> None:
        """The others can see the caller from now on."""
        self._is_seen = True
        self._subscribe_to_all()

    def renew(self) -> None:
        """Subscribe again after an SDK reconnect: the SDK announces the tracks before the connection accepts
        subscriptions."""
        self._subscribe_to_all()

    def listen(self, rate: int) -> None:
        self._rate = rate
        for sid, track in self._tracks.items():
            self._open(sid, track)

    def detach(self) -> None:
        """The connection is lost or closed: stop the delivery from all tracks."""
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
