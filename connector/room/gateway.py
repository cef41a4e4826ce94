"""One caller's session in a LiveKit room: join, reveal, publish, subscribe, join again after an outage, leave.

The call layer sees this class only as `connector.call.ports.Room`, and receives events through a `RoomListener`; every
callback runs on the event loop. Parts: `Subscriptions` (audio of the other participants), `Microphone` (audio of the
caller), `Connection` (one rtc.Room and the requests over it), `Outage` (the time limit for a lost connection).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from livekit import rtc

from connector.errors import Unavailable
from connector.metrics import Metrics
from connector.model.call import ParticipantSpec
from connector.room.admission import CallIsOver
from connector.room.disconnects import end_of, name_of
from connector.room.engine import engine
from connector.room.handles import free_room
from connector.room.join_token import hidden_grants, join_token, visible_grants
from connector.room.joining import Connection, disconnect, join
from connector.room.listener import RoomListener
from connector.room.microphone import Microphone
from connector.room.outage import FindRoom, Outage
from connector.room.participants import RoomParticipants
from connector.room.rejoin import Turn, until_joined
from connector.room.subscriptions import Handlers, Subscriptions

log = structlog.get_logger()

CLEAR_TOPIC = "connector.clear"
"""Data topic and RPC method by which a participant discards the audio that the caller has not heard yet."""

_PHONE_KINDS = frozenset({rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR, rtc.ParticipantKind.PARTICIPANT_KIND_SIP})


class RoomGateway:
    """The caller's participant in a room. Use it once: join (hidden or visible), then publish, then leave."""

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
        turn: Turn,
    ) -> None:
        """`reconnect_timeout` in seconds. `turn`: limits concurrent joins of the process; used to join again after an
        outage."""
        self._url = url
        self._key = api_key
        self._secret = api_secret
        self._name = room
        self._participant = participant
        """The caller as it is to appear; after a connection was lost, as it was last."""
        self._kind_details = kind_details
        self._outage = Outage(reconnect_timeout, find_room, self._is_alone, listener.room_ended, self._on_regained)
        self._listener = listener
        self._participants = RoomParticipants(listener)
        self._metrics = metrics
        self._turn = turn
        self._sounds = Subscriptions(listener, self._outage.company_came)
        self._connection: Connection | None = None
        self._microphone: Microphone | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._unseen: dict[asyncio.Future[None], dict[str, str]] = {}
        """Pending attribute requests: the future is done once the caller is seen with these attributes."""
        self._sid = ""
        """The participant's SID in its latest connection."""
        self._is_hidden = False
        self._listening = False
        self._left = False
        self._has_ended = False
        self._is_lingering = False

    # Joining

    async def join_hidden(self, attributes: Mapping[str, str]) -> None:
        """Join as a hidden participant; the others get no event. Raises Unavailable."""
        self._is_hidden = True
        await self._join_first(attributes)

    async def join_visible(self, participant: ParticipantSpec) -> None:
        """Join as a visible participant, with this name, metadata and attributes. Publish right after it: the
        others may see a participant without a track only after a second or more. Raises Unavailable."""
        self._participant = participant
        self._sounds.seen()
        await self._join_first(participant.attributes)

    async def _join_first(self, attributes: Mapping[str, str]) -> None:
        connection = await self._join(attributes)
        self._outage.joined(lambda: connection.room.sid)

    async def _join(self, attributes: Mapping[str, str]) -> Connection:
        grants = hidden_grants(self._name) if self._is_hidden else visible_grants(self._name)
        token = join_token(self._key, self._secret, self._participant, self._kind_details, grants, attributes)
        room = rtc.Room()
        for event, handler in self._handlers():
            room.on(event, handler)
        await join(room, self._url, token)
        connection = self._connection = Connection(room)
        try:
            await engine.require_clock()
            if self._left:
                raise Unavailable("the caller left while it was joining")
            if not room.isconnected():
                raise Unavailable("LiveKit removed the caller right after the join")
        except Unavailable:
            # Remove the event handlers first: the call must get this error only, not a disconnect event as well.
            await self._drop()
            raise
        self._sid = room.local_participant.sid
        self._watch_microphone()
        self._sounds.attach(room)
        self._participants.begin(room)
        if self._listening:
            room.local_participant.register_rpc_method(CLEAR_TOPIC, self._on_clear_rpc)
        return connection

    def _handlers(self) -> Handlers:
        return [
            *self._sounds.handlers,
            *self._participants.listeners(),
            ("sip_dtmf_received", self._on_dtmf),
            ("data_received", self._on_data),
            ("participant_attributes_changed", self._on_attributes),
            ("reconnecting", self._on_reconnecting),
            ("reconnected", self._on_reconnected),
            ("disconnected", self._on_disconnected),
        ]

    def revealed(self) -> None:
        """The caller, who joined hidden, is visible to the others from now on."""
        self._is_hidden = False
        self._sounds.seen()

    def listen(self, rate: int) -> None:
        """From now on deliver room audio at `rate` samples a second, DTMF and clear requests; earlier ones are
        discarded. May be called before or after the join."""
        self._listening = True
        self._sounds.listen(rate)
        if self._connection is not None:
            self._connection.room.local_participant.register_rpc_method(CLEAR_TOPIC, self._on_clear_rpc)

    async def publish(self, rate: int) -> None:
        """Publish the caller's microphone track at `rate` samples a second. During an outage it waits for the
        connection first. Raises Unavailable."""
        microphone = self._microphone = Microphone(rate, lambda fault: self._metrics.sdk_faults.labels(fault).inc())
        self._watch_microphone()
        while True:
            connection = await self.until_connected()
            if microphone.is_published_in(connection):
                return
            try:
                return await microphone.publish(connection)
            except Unavailable:
                if not connection.lost.done() and not self._outage.is_on:
                    raise

    def _watch_microphone(self) -> None:
        if self._connection is not None and self._microphone is not None:
            for event, handler in self._microphone.handlers:
                self._connection.room.on(event, handler)

    # In the room

    async def until_connected(self) -> Connection:
        """Return the connection, after the outage if there is one. Raises Unavailable when the caller has left or the
        room has ended the call."""
        while not self._left and not self._has_ended:
            if not self._outage.is_on:
                return self._connected()
            await self._outage.over()
        raise Unavailable("the caller is no longer in its room")

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.lost.done():
            raise Unavailable("the caller is not in its room")
        return self._connection

    async def wait_until_heard(self) -> None:
        """Wait until somebody is subscribed to the published track: audio sent earlier is lost. LiveKit does not report
        subscriptions by hidden participants."""
        if self._microphone is not None:
            await self._microphone.wait_until_heard()

    def capture(self, pcm: bytes) -> None:
        """Send the caller's voice: int16 mono, a multiple of 10 ms. Ignored before `publish`."""
        if self._microphone is not None:
            self._microphone.capture(pcm)

    def take_dropped(self) -> int:
        """Number of 10 ms frames dropped since the last call of this method because the SDK was too slow."""
        return self._microphone.take_dropped() if self._microphone is not None else 0

    async def send_dtmf(self, code: int, digit: str) -> None:
        """Publish a digit to the room as LiveKit's own DTMF event. Raises Unavailable."""
        connection = self._connected()
        sending = connection.room.local_participant.publish_dtmf(code=code, digit=digit)
        await connection.ask(sending, "the digit could not be published", connection.lost)

    async def set_attributes(self, attributes: Mapping[str, str]) -> None:
        """Merge these into the caller's attributes. Raises Unavailable, immediately when the connection is lost.

        Shortly after a join the SDK (1.1.21) sometimes loses LiveKit's answer. So the event that shows the new
        attributes counts as the answer, too.
        """
        connection = self._connected()
        wanted = dict(attributes)
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unseen[seen] = wanted

        async def set_or_seen() -> None:
            setting = asyncio.ensure_future(connection.room.local_participant.set_attributes(wanted))
            try:
                await asyncio.wait([setting, seen], return_when=asyncio.FIRST_COMPLETED)
                if setting.done():
                    setting.result()
            finally:
                setting.cancel()

        try:
            await connection.ask(set_or_seen(), "attributes could not be set", connection.shaken)
        finally:
            del self._unseen[seen]

    @property
    def participant(self) -> ParticipantSpec:
        """See `connector.call.ports.Room`."""
        if self._connection is None:
            return self._participant
        here = self._connection.room.local_participant
        return ParticipantSpec(self._participant.identity, here.name, here.metadata, dict(here.attributes))

    @property
    def connected(self) -> bool:
        """Whether requests to LiveKit are possible now: False during an outage."""
        return self._connection is not None and not self._connection.is_lost and not self._outage.is_on

    def _is_alone(self) -> bool:
        return self._connection is None or not self._connection.room.remote_participants

    # Leaving

    async def leave(self) -> None:
        """Leave the room and free all resources. Raises nothing; may be called at any moment and more than once."""
        self._left = True
        self._is_lingering |= self._outage.is_on and not self._has_ended
        self._outage.close()
        if self._rejoining is not None:
            self._rejoining.cancel()
            await asyncio.wait([self._rejoining])
        microphone, self._microphone = self._microphone, None
        if microphone is not None:
            await microphone.settle()
            if self._connection is not None:
                for event, handler in microphone.handlers:
                    self._connection.room.off(event, handler)
            await microphone.close()
        await self._drop()

    @property
    def sid(self) -> str:
        """LiveKit's SID of the room; "" while it is unknown."""
        return self._outage.sid

    @property
    def lingering(self) -> str:
        """The SID of the participant that LiveKit may still have in the room because `leave` ran during an outage; else
        ""."""
        return self._sid if self._is_lingering else ""

    async def _drop(self) -> None:
        """Close the connection, leave the room if the caller is still in it, and free the SDK's objects."""
        self._participant = self.participant
        connection, self._connection = self._connection, None
        if connection is None:
            return
        room = connection.room
        for event, handler in self._handlers():
            room.off(event, handler)
        self._sounds.detach()
        self._participants.end()
        if self._microphone is not None:
            for event, handler in self._microphone.handlers:
                room.off(event, handler)
            self._microphone.detach()
        if self._listening:
            # The SDK keeps the room of a registered method, half a megabyte, for the life of the process.
            room.local_participant.unregister_rpc_method(CLEAR_TOPIC)
        connection.lose()
        await disconnect(room)
        await engine.left(room)
        if not engine.holds(room):
            free_room(room)

    # Events of the SDK

    def _on_dtmf(self, dtmf: rtc.SipDTMF) -> None:
        # DTMF in a room is a broadcast: a digit that one phone sends must not be played to another phone.
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
        for seen, wanted in self._unseen.items():
            if wanted.items() <= participant.attributes.items() and not seen.done():
                seen.set_result(None)
        if self._listening:
            self._listener.room_attributes(changed)

    def _on_reconnecting(self) -> None:
        if self._connection is not None and not self._left:
            self._connection.shake()
            self._outage_begins("reconnecting")

    def _on_reconnected(self) -> None:
        if self._connection is not None:
            self._connection.steady()
            self._sid = self._connection.room.local_participant.sid
            self._outage.ends()
            self._sounds.renew()

    def _on_disconnected(self, reason: int) -> None:
        if self._left:
            return
        end = end_of(reason)
        if self._connection is not None:
            self._connection.lose()
        if end is not None:
            self._has_ended = True
            self._outage.close()
            self._listener.room_ended(end, name_of(reason))
        elif self._connection is not None:  # None: the join itself failed, and raises its own error.
            self._outage_begins(name_of(reason))
            if self._rejoining is None or self._rejoining.done():
                self._rejoining = asyncio.create_task(self._rejoin(), name="join again")
                self._rejoining.add_done_callback(_log_failure)

    def _outage_begins(self, why: str) -> None:
        if not self._outage.is_on:
            self._listener.room_lost()
            self._outage.begins(why)

    def _on_regained(self, same_room: bool) -> None:
        self._participants.tell()
        self._listener.room_regained(same_room, self._outage.may_be_deleted)

    async def _rejoin(self) -> None:
        """The SDK has given up the connection: join again with a new rtc.Room, with the same attributes and track."""
        await self._drop()
        try:
            await until_joined(self._join_again, self._turn)
        except CallIsOver:
            return  # Whoever ended the call leaves the room.
        self._outage.ends()

    async def _join_again(self) -> None:
        connection = await self._join(self._participant.attributes)
        try:
            if self._microphone is not None:
                await self._microphone.publish(connection)
            if connection.lost.done():
                # A loss during this attempt starts no second rejoin task, so this one must try again.
                raise Unavailable("the connection to LiveKit was lost again at once")
        except Unavailable:
            await self._drop()
            raise


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("rejoining the room failed with an unexpected error", exc_info=error)
