"""One caller's session in a LiveKit room: join, reveal, publish, subscribe, leave.

The call above knows this class only as `connector.call.ports.Room`, and is told what happens through a
`RoomListener`; every callback runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from livekit import rtc
from livekit.rtc.participant import PublishTrackError
from livekit.rtc.room import EventTypes

from connector.errors import Unavailable
from connector.metrics import Metrics
from connector.model import EndReason, ParticipantSpec
from connector.room.company import Company
from connector.room.engine import engine
from connector.room.events import RoomListener
from connector.room.media import AudioTap, CallerSource, media_router
from connector.room.outage import FindRoom, Outage
from connector.room.tokens import hidden_grants, join_token, visible_grants

log = structlog.get_logger()

JOIN_TIMEOUT = 3.5
LEAVE_TIMEOUT = 5.0
ENGINE_DOWN = 0.2
"""Seconds in which the SDK, after the end of a failed join, has taken its media engine down; it does not tell."""
CLEAR_TOPIC = "connector.clear"
"""Topic of a data message, and name of an RPC method, with which the room drops what the caller has yet to hear."""

_PHONE_KINDS = frozenset({rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR, rtc.ParticipantKind.PARTICIPANT_KIND_SIP})
_REASONS = {
    rtc.DisconnectReason.DUPLICATE_IDENTITY: EndReason.DUPLICATE_IDENTITY,
    rtc.DisconnectReason.PARTICIPANT_REMOVED: EndReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED: EndReason.ROOM_DELETED,
    rtc.DisconnectReason.ROOM_CLOSED: EndReason.ROOM_DELETED,
}


class RoomGateway:
    """A caller in a room. Use once: join (hidden or visible), then publish, then leave."""

    def __init__(
        self,
        url: str,
        api_key: str,
        api_secret: str,
        room: str,
        participant: ParticipantSpec,
        kind_details: tuple[str, ...],
        reconnect_timeout: float,
        find_room: FindRoom,
        listener: RoomListener,
        metrics: Metrics,
    ) -> None:
        self._url = url
        self._key = api_key
        self._secret = api_secret
        self._name = room
        self._participant = participant
        self._kind_details = kind_details
        self._outage = Outage(reconnect_timeout, find_room, self._is_alone, listener.room_ended, self._on_regained)
        self._listener = listener
        self._company = Company(listener)
        self._metrics = metrics
        self._room: rtc.Room | None = None
        self._source: CallerSource | None = None
        self._track: rtc.LocalAudioTrack | None = None
        self._publication: rtc.LocalTrackPublication | None = None
        self._tracks: dict[str, rtc.Track] = {}
        self._taps: dict[str, AudioTap] = {}
        self._unseen: dict[asyncio.Task[None], dict[str, str]] = {}
        """Requests for attributes that the caller does not have yet."""
        self._listening = False
        self._listening_rate = 0
        self._left = False

    async def join_hidden(self, attributes: Mapping[str, str]) -> None:
        """Join unseen; others get no event. Raises Unavailable."""
        await self._join(hidden_grants(self._name), attributes)

    async def join_visible(self, attributes: Mapping[str, str]) -> None:
        """Join seen. Publish at once: a participant without a track may stay unseen for a second or more."""
        await self._join(visible_grants(self._name), attributes)

    async def _join(self, grants: Mapping[str, object], attributes: Mapping[str, str]) -> None:
        media_router()
        if _abandoned and not engine.is_held:
            await self._after_those_given_up()
        token = join_token(self._key, self._secret, self._participant, self._kind_details, grants, attributes)
        room = rtc.Room()
        self._register(room)
        connecting = asyncio.ensure_future(
            room.connect(self._url, token, rtc.RoomOptions(auto_subscribe=False, connect_timeout=JOIN_TIMEOUT))
        )
        try:
            await asyncio.wait_for(asyncio.shield(connecting), JOIN_TIMEOUT)
        except rtc.ConnectError as error:
            raise Unavailable(f"livekit-server at {self._url} did not let the caller join: {error.message}") from error
        except TimeoutError as error:
            _abandon(room, connecting)
            raise Unavailable(f"livekit-server at {self._url} did not answer the join in {JOIN_TIMEOUT:g} s") from error
        except asyncio.CancelledError:
            _abandon(room, connecting)
            raise
        try:
            if self._left:
                raise Unavailable("the caller left while it was joining")
            engine.require_clock()
        except Unavailable:
            # The call hears of it by this error, and not by the end of the connection as well.
            self._left = True
            await _disconnect(room)
            raise
        self._room = room
        self._outage.joined(lambda: room.sid)
        self._subscribe_to_all()
        self._company.begin(room)

    async def _after_those_given_up(self) -> None:
        """Until a room is held, no join may begin while a failed one takes the media engine down."""
        _, endless = await asyncio.wait(set(_abandoned), timeout=JOIN_TIMEOUT)
        if endless:
            raise Unavailable(f"livekit-server at {self._url} has not answered an earlier join yet")
        await asyncio.sleep(ENGINE_DOWN)

    def _subscribe_to_all(self) -> None:
        for participant in self._connected().remote_participants.values():
            for publication in participant.track_publications.values():
                self._on_track_published(publication)

    def _register(self, room: rtc.Room) -> None:
        for event, listener in self._listeners():
            room.on(event, listener)

    def _listeners(self) -> list[tuple[EventTypes, Callable[..., None]]]:
        return [
            ("track_published", self._on_track_published),
            ("track_subscribed", self._on_track_subscribed),
            ("track_unsubscribed", self._on_track_unsubscribed),
            ("sip_dtmf_received", self._on_dtmf),
            ("data_received", self._on_data),
            ("participant_attributes_changed", self._on_attributes),
            ("reconnecting", self._on_reconnecting),
            ("reconnected", self._on_reconnected),
            ("disconnected", self._on_disconnected),
            *self._company.listeners(),
        ]

    def listen(self, rate: int) -> None:
        """Deliver room audio at `rate` samples a second, DTMF and clears from now on; what came before is discarded."""
        self._listening, self._listening_rate = True, rate
        self._connected().local_participant.register_rpc_method(CLEAR_TOPIC, self._on_clear_rpc)
        for sid, track in self._tracks.items():
            self._open_tap(sid, track)

    async def publish(self, rate: int) -> None:
        """Publish the caller's microphone track, of `rate` samples a second. Raises Unavailable."""
        room = self._connected()
        self._source, self._track = _voice(rate)
        self._source.on_fault = lambda fault: self._metrics.sdk_faults.labels(fault).inc()
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        try:
            self._publication = await asyncio.wait_for(
                room.local_participant.publish_track(self._track, options), JOIN_TIMEOUT
            )
        except (PublishTrackError, TimeoutError) as error:
            raise Unavailable(f"the caller's audio track could not be published: {error!r}") from error

    async def wait_until_heard(self) -> None:
        """Until LiveKit gives the published track to somebody: before, it is lost. Not told of hidden participants."""
        if self._publication is not None:
            await self._publication.wait_for_subscription()

    def capture(self, pcm: bytes) -> None:
        """The caller's voice: int16 mono, a multiple of 10 ms. Nothing happens before `publish`."""
        if self._source is not None:
            self._source.capture(pcm)

    def take_dropped(self) -> int:
        """10 ms frames the SDK was too slow to take since the last call of this method."""
        if self._source is None:
            return 0
        dropped, self._source.dropped = self._source.dropped, 0
        return dropped

    async def send_dtmf(self, code: int, digit: str) -> None:
        """Publish a digit to the room as LiveKit's own DTMF event."""
        try:
            await self._connected().local_participant.publish_dtmf(code=code, digit=digit)
        except Exception as error:  # The SDK raises a bare Exception subclass for each request kind.
            raise Unavailable(f"the digit could not be published: {error}") from error

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        """Merge these into the caller's attributes. Raises Unavailable.

        In the first moments after a join the SDK loses LiveKit's answer now and then (1.1.21): to see the attributes
        set is as good as an answer.
        """
        wanted = dict(attributes)
        request = asyncio.create_task(self._connected().local_participant.set_attributes(wanted), name="set attributes")
        self._unseen[request] = wanted
        try:
            await asyncio.wait([request], timeout=JOIN_TIMEOUT)
            if not request.done():
                raise Unavailable(f"LiveKit has not set attributes in {JOIN_TIMEOUT:g} s")
            if not request.cancelled() and (error := request.exception()):
                raise Unavailable(f"attributes could not be set: {error!r}") from error
        finally:
            del self._unseen[request]
            request.cancel()

    @property
    def attributes(self) -> Mapping[str, str]:
        """The caller's attributes as the room has them; empty before the join."""
        return dict(self._room.local_participant.attributes) if self._room is not None else {}

    @property
    def connected(self) -> bool:
        """Whether LiveKit can be told something now: false while a lost connection has not come back."""
        return self._room is not None and self._room.isconnected() and not self._outage.is_on

    async def leave(self) -> None:
        """Leave and free everything; raises nothing, may be called at any moment and twice."""
        self._left = True
        was_listening, self._listening = self._listening, False
        self._outage.close()
        self._company.end()
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()
        self._tracks.clear()
        room, self._room = self._room, None
        if self._source is not None and self._track is not None:
            if room is None or not room.isconnected():
                self._source.take_back()
                _stranded.setdefault(self._source.rate, []).append((self._source, self._track))
            else:
                await self._source.close()
        self._source = self._track = self._publication = None
        if room is not None:
            if was_listening:
                # In the SDK a registered method holds its room, with half a megabyte, for the life of the process.
                room.local_participant.unregister_rpc_method(CLEAR_TOPIC)
            await _disconnect(room)
            for event, listener in self._listeners():
                room.off(event, listener)
            engine.left(room)

    def _connected(self) -> rtc.Room:
        if self._room is None:
            raise RuntimeError("the room is not joined")
        return self._room

    def _is_alone(self) -> bool:
        return self._room is None or not self._room.remote_participants

    # What the room tells us

    def _on_track_published(self, publication: rtc.RemoteTrackPublication) -> None:
        self._outage.company_came()
        if publication.kind == rtc.TrackKind.KIND_AUDIO:
            publication.set_subscribed(True)

    def _on_track_subscribed(self, track: rtc.Track, publication: rtc.RemoteTrackPublication) -> None:
        if self._left or track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        self._tracks[publication.sid] = track
        if self._listening:
            self._open_tap(publication.sid, track)

    def _open_tap(self, sid: str, track: rtc.Track) -> None:
        if sid in self._taps:
            self._taps.pop(sid).close()
        else:
            self._listener.room_source_added(sid)
        self._taps[sid] = AudioTap(track, lambda pcm, at: self._listener.room_audio(sid, pcm, at), self._listening_rate)

    def _on_track_unsubscribed(self, _: rtc.Track, publication: rtc.RemoteTrackPublication) -> None:
        self._tracks.pop(publication.sid, None)
        tap = self._taps.pop(publication.sid, None)
        if tap is not None:
            tap.close()
            self._listener.room_source_removed(publication.sid)

    def _on_dtmf(self, dtmf: rtc.SipDTMF) -> None:
        # A digit in a room is a broadcast: one that a phone sent is not meant for another phone's ear.
        sender = dtmf.participant
        if self._listening and (sender is None or sender.kind not in _PHONE_KINDS):
            self._listener.room_dtmf(dtmf.digit)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if self._listening and packet.topic == CLEAR_TOPIC:
            self._listener.room_cleared()

    async def _on_clear_rpc(self, _: rtc.RpcInvocationData) -> str:
        if self._listening:
            self._listener.room_cleared()
        return "ok"

    def _on_attributes(self, changed: dict[str, str], participant: rtc.Participant) -> None:
        if not isinstance(participant, rtc.LocalParticipant):
            return
        for request, wanted in self._unseen.items():
            if wanted.items() <= participant.attributes.items():
                request.cancel()
        if self._listening:
            self._listener.room_attributes(changed)

    def _on_reconnecting(self) -> None:
        if not self._left:
            self._listener.room_lost()
            self._outage.begins()

    def _on_reconnected(self) -> None:
        self._outage.ends()
        if not self._left:
            # A full reconnect announces every track before the new connection takes subscriptions: they are lost.
            self._subscribe_to_all()

    def _on_regained(self, same_room: bool) -> None:
        self._company.tell()
        self._listener.room_regained(same_room, self._outage.may_be_deleted)

    def _on_disconnected(self, reason: int) -> None:
        # Our own disconnect() fires this event too; the call has decided its end by then.
        if self._left:
            return
        name = rtc.DisconnectReason.Name(reason)  # type: ignore[arg-type]
        self._listener.room_ended(_REASONS.get(reason, EndReason.LIVEKIT_LOST), name)  # type: ignore[call-overload]


_stranded: dict[int, list[tuple[CallerSource, rtc.LocalAudioTrack]]] = {}
"""Voices of rooms that LiveKit ended, by their rate, for the next calls. The SDK never lets go of a track that was
published at such an end, and with it keeps a closed connection and its five threads; to publish the track once
more frees them (https://github.com/livekit/rust-sdks/issues/1443)."""


def _voice(rate: int) -> tuple[CallerSource, rtc.LocalAudioTrack]:
    if stranded := _stranded.get(rate):
        return stranded.pop()
    source = CallerSource(rate)
    return source, rtc.LocalAudioTrack.create_audio_track("phone", source.rtc_source)


_abandoned: set[asyncio.Task[None]] = set()


def _abandon(room: rtc.Room, connecting: asyncio.Future[None]) -> None:
    """Let a join that we no longer wait for finish, then leave: cancelled, it would join without an owner."""

    async def finish() -> None:
        try:
            await connecting
        except rtc.ConnectError:
            return
        except asyncio.CancelledError:
            # The SDK takes this subscription back only where a join succeeds or fails.
            media_router().unsubscribe(room._ffi_queue)
            raise
        await _disconnect(room)

    task = asyncio.ensure_future(finish())
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


async def drain_abandoned() -> None:
    """Wait for joins that were given up, and stop the ones that do not end; for an orderly stop of the process."""
    if _abandoned:
        _, endless = await asyncio.wait(set(_abandoned), timeout=LEAVE_TIMEOUT)
        for task in endless:
            task.cancel()
        if endless:
            await asyncio.wait(endless)


async def _disconnect(room: rtc.Room) -> None:
    try:
        await asyncio.wait_for(room.disconnect(), LEAVE_TIMEOUT)
    except TimeoutError:
        log.warning("LiveKit did not confirm the leave", limit_seconds=LEAVE_TIMEOUT)
