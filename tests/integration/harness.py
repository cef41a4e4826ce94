"""What the integration tests share: people in rooms, a connector, calls. Waits for events, never for time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from livekit import api, rtc
from numpy.typing import NDArray

from carrier_simulator import Document, OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.config import Settings
from connector.config_sources import load_settings
from connector.model.call import CallRecord
from demo.compare import rms
from demo.livekit_server import LiveKitServer
from demo.ports import PortLease

RATE = 8000
PATIENCE = 20.0
"""Seconds until something that is to happen must have happened, on a machine that does much else. The tests never wait
so long when all is well."""
TWILIO_TOKEN = "twilio-auth-token-of-the-tests"
INBOUND = api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND
OUTBOUND = api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND


def tone(frequency: float, seconds: float, level: float = 8000.0) -> NDArray[np.int16]:
    """A sine, int16 at 8 kHz."""
    time = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(level * np.sin(2 * np.pi * frequency * time), dtype=np.int16)


def strength(pcm: NDArray[np.int16], frequency: float) -> float:
    """Amplitude of one frequency in a piece of sound: what `tone` was given as level, for a pure tone."""
    if len(pcm) == 0:
        return 0.0
    phase = np.exp(-2j * np.pi * frequency * np.arange(len(pcm)) / RATE)
    return float(2 * abs(np.dot(pcm.astype(np.float64), phase)) / len(pcm))


async def until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """For state of other processes that announces nothing: looks every 10 ms."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


class Guest:
    """An ordinary participant of a room; every SDK event it gets is kept in `events` as (name, args)."""

    EVENTS = (
        "participant_connected",
        "participant_disconnected",
        "participant_attributes_changed",
        "track_published",
        "track_unpublished",
        "track_subscribed",
        "sip_dtmf_received",
        "data_received",
        "disconnected",
    )

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._source: rtc.AudioSource | None = None
        self._publication: rtc.LocalTrackPublication | None = None
        self._streams: list[rtc.AudioStream] = []
        self._left = False
        self.heard: dict[str, list[NDArray[np.int16]]] = {}
        """20 ms pieces by the speaker's identity."""
        self.heard_at: dict[str, list[float]] = {}
        """Monotonic times at which they came."""
        for name in self.EVENTS:
            self.room.on(name, self._recorder(name))  # type: ignore[arg-type]

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(*args: Any) -> None:
            if self._left:
                # A stream that begins now would be closed by nobody, and hear the whole process after its loop.
                return
            self.events.append((name, args))
            if name == "track_subscribed" and args[0].kind == rtc.TrackKind.KIND_AUDIO:
                self._spawn(self._record_audio(args[0], args[2].identity))
            self._spawn(self._notify())

        return record

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _record_audio(self, track: rtc.Track, identity: str) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        self._streams.append(stream)
        pieces, times = self.heard.setdefault(identity, []), self.heard_at.setdefault(identity, [])
        async for event in stream:
            pieces.append(np.frombuffer(event.frame.data, dtype=np.int16))
            times.append(time.monotonic())
            await self._notify()

    def sound_of(self, identity: str) -> NDArray[np.int16]:
        pieces = self.heard.get(identity, [])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Until something that this guest notices makes the condition true."""
        try:
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError as error:
            error.add_note(f"the guest has heard {self._what_was_heard() or 'nobody'}")
            raise

    def _what_was_heard(self) -> str:
        """How much of each in how long, and how loud it was in the end."""
        return ", ".join(
            f"{identity}: {len(times) * 0.02:.2f} s in {time.monotonic() - times[0]:.2f} s, of the last half second "
            f"{rms(self.sound_of(identity)[-RATE // 2 :]):.0f} RMS"
            for identity, times in self.heard_at.items()
            if times
        )

    async def event(
        self, name: str, match: Callable[..., bool] = lambda *_: True, patience: float = PATIENCE
    ) -> tuple[Any, ...]:
        """The first event of this name, past or to come, whose arguments match."""

        def found() -> list[tuple[Any, ...]]:
            return [args for seen, args in self.events if seen == name and match(*args)]

        await self.until(lambda: bool(found()), patience)
        return found()[0]

    def saw(self, name: str) -> list[tuple[Any, ...]]:
        return [args for seen, args in self.events if seen == name]

    async def publish(self, source: rtc.TrackSource.ValueType = rtc.TrackSource.SOURCE_MICROPHONE) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=0)
        track = rtc.LocalAudioTrack.create_audio_track("guest", self._source)
        self._publication = await self.room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=source)
        )

    async def unpublish(self) -> None:
        assert self._publication is not None
        await self.room.local_participant.unpublish_track(self._publication.sid)
        self._source = None

    @property
    def track(self) -> rtc.LocalAudioTrack:
        assert self._publication is not None
        assert isinstance(self._publication.track, rtc.LocalAudioTrack)
        return self._publication.track

    async def say(self, pcm: NDArray[np.int16]) -> None:
        """Speak int16 at 8 kHz in real time; returns when it is said."""
        assert self._source is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        for index in range(len(pcm) // 80):
            piece = pcm[index * 80 : (index + 1) * 80]
            await self._source.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, 80))
            await asyncio.sleep(max(0.0, start + (index + 1) / 100 - loop.time()))

    def start_saying(self, pcm: NDArray[np.int16]) -> None:
        self._spawn(self.say(pcm))

    async def leave(self) -> None:
        self._left = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()
        await self.room.disconnect()


class Stage:
    """One livekit-server with everything a test puts around it; what it starts, it stops."""

    def __init__(self, livekit: LiveKitServer, stack: contextlib.AsyncExitStack, folder: Path) -> None:
        self.livekit = livekit
        self._stack = stack
        self._folder = folder
        self.admin: api.LiveKitAPI

    async def start(self) -> None:
        self.admin = api.LiveKitAPI(self.livekit.http_url, self.livekit.api_key, self.livekit.api_secret)
        self._stack.push_async_callback(self.admin.aclose)

    def free_port(self) -> int:
        """Leased until the end of the test."""
        lease = PortLease()
        self._stack.callback(lease.close)
        return lease.port

    def settings(self, **changes: Any) -> Settings:
        """Settings for a connector here, on a port of its own."""
        port = self.free_port()
        values: dict[str, Any] = {
            "livekit_url": self.livekit.url,
            "livekit_api_key": self.livekit.api_key,
            "livekit_api_secret": self.livekit.api_secret,
            "port": port,
            "grpc_port": 0,
            "public_url": f"http://127.0.0.1:{port}",
            "store": f"sqlite:///{self._folder}/calls-{port}.db",
            "twilio_auth_token": TWILIO_TOKEN,
            "instance": f"test-{port}",
        }
        return load_settings(None, values | changes)

    async def connector(self, **changes: Any) -> Connector:
        """A connector in this process, stopped (without a drain) at the end of the test."""
        connector = Connector(self.settings(**changes))
        await connector.start()
        self._stack.push_async_callback(stop, connector)
        return connector

    async def enter(self, what: contextlib.AbstractAsyncContextManager[Any]) -> None:
        """Leave it at the end of the test."""
        await self._stack.enter_async_context(what)

    async def twilio(self, **options: Any) -> TwilioSimulator:
        return await self._stack.enter_async_context(TwilioSimulator(auth_token=TWILIO_TOKEN, **options))

    def client(self, connector: Connector, **changes: Any) -> api.LiveKitAPI:
        """LiveKit's own SDK, pointed at the connector."""
        client = api.LiveKitAPI(
            connector.settings.public_origin,
            changes.get("api_key", self.livekit.api_key),
            changes.get("api_secret", self.livekit.api_secret),
            failover=False,
        )
        self._stack.push_async_callback(client.aclose)
        return client

    async def http(self) -> aiohttp.ClientSession:
        return await self._stack.enter_async_context(aiohttp.ClientSession())

    async def guest(self, room: str, identity: str = "guest", **options: Any) -> Guest:
        guest = Guest()
        grants = api.VideoGrants(room_join=True, room=room, can_update_own_metadata=True)
        token = api.AccessToken(self.livekit.api_key, self.livekit.api_secret).with_identity(identity)
        await guest.room.connect(self.livekit.url, token.with_grants(grants).to_jwt(), rtc.RoomOptions(**options))
        self._stack.push_async_callback(guest.leave)
        return guest

    async def participants(self, room: str) -> dict[str, api.ParticipantInfo]:
        """Everybody in a room by identity, hidden ones too."""
        listed = await self.admin.room.list_participants(api.ListParticipantsRequest(room=room))
        return {participant.identity: participant for participant in listed.participants}

    async def gone(self, room: str, identity: str, patience: float = PATIENCE) -> None:
        """Until LiveKit lists the participant no more: it confirms a leave a moment before it forgets who left."""
        async with asyncio.timeout(patience):
            while identity in await self.participants(room):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    async def rooms(self) -> set[str]:
        listed = await self.admin.room.list_rooms(api.ListRoomsRequest())
        return {room.name for room in listed.rooms}


async def connect_call(client: api.LiveKitAPI, room: str, direction: Any = OUTBOUND, **fields: Any) -> str:
    """ConnectTwilioCall by the SDK; the connect_url."""
    fields.setdefault("participant_identity", "caller")
    request = api.ConnectTwilioCallRequest(twilio_call_direction=direction, room_name=room, **fields)
    return (await client.connector.connect_twilio_call(request)).connect_url


def place(twilio: TwilioSimulator, connect_url: str, to: str = "+15551234567") -> OutboundCall:
    """Place a call as the documents say: `connect_url` with its scheme turned from ws(s) to http(s)."""
    return twilio.dial(to, "+15557654321", Document(connect_url.replace("ws", "http", 1)))


def only_session(connector: Connector) -> Any:
    """The one live call, for tests that look inside."""
    (call,) = connector.calls.live()
    return call


async def ended(connector: Connector, call_id: str = "", patience: float = PATIENCE) -> CallRecord:
    """The record of the (only) call, once everything it held is free."""
    if not call_id:
        records = await connector.store.list_calls(2)
        assert len(records) == 1, records
        call_id = records[0].call_id
    for call in connector.calls.live():
        if call.call_id == call_id:
            async with asyncio.timeout(patience):
                await call.finished.wait()
    record = await connector.store.get_call(call_id)
    assert record is not None
    assert record.end_reason is not None
    return record


async def stop(connector: Connector) -> None:
    """Without a drain. Its calls are ended first: it would hand them over to another connector of the test, and wait
    until their carrier has opened the next stream there."""
    connector.calls.end_all()
    await connector.stop(0.0)


class LogLines(logging.Handler):
    """Every structured line as a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            self.lines.append(dict(record.msg))
        else:
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(record.getMessage()))


@asynccontextmanager
async def stage_on(livekit: LiveKitServer, folder: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(livekit, stack, folder)
        await stage.start()
        yield stage
