"""The telephones: the carrier simulator and an API client in one process. Controlled by lines; see `bench.worker`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import numpy as np
from livekit import api, rtc
from numpy.typing import NDArray

from bench import sound
from bench.analysis import delays, onset
from bench.tape import Tape
from bench.worker import Handler, run_worker
from carrier_simulator import CallOptions, Document, OutboundCall, Outcome, TwilioSimulator
from connector.audio.g711 import ulaw_decode

PATIENCE = 15.0
BURST_PATIENCE = 30.0
_DIRECTIONS = {
    "inbound": api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND,
    "outbound": api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND,
}
_LOUD = 300
"""Minimum amplitude of the caller's voice at a listener; concealed and silent frames stay below."""


class Listener:
    """A participant of the room that records when the first sound arrives."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self._room.on("track_subscribed", self._on_track)
        self._first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    async def join(self, url: str, token: str) -> None:
        await self._room.connect(url, token)

    def _on_track(self, track: rtc.Track, *_: object) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=sound.RATE, num_channels=1, frame_size_ms=10)
        async for event in stream:
            pcm = np.frombuffer(event.frame.data, np.int16)
            if pcm.max() > _LOUD and not self._first.done():
                self._first.set_result(time.monotonic())

    async def first_sound(self) -> float:
        async with asyncio.timeout(PATIENCE):
            return await self._first

    async def leave(self) -> None:
        await self._room.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Callers:
    def __init__(self) -> None:
        self._twilio: TwilioSimulator
        self._client: api.LiveKitAPI
        self._admin: api.LiveKitAPI
        self._calls: list[OutboundCall] = []
        self._livekit: tuple[str, str, str] = ("", "", "")
        self._connector = ""

    async def meet(self, connector: str, url: str, key: str, secret: str, twilio_token: str) -> None:
        """Sets the addresses of the connector and LiveKit; to be called again for another connector."""
        if self._livekit[0]:
            await self._leave()
        self._livekit = url, key, secret
        self._connector = connector
        self._client = api.LiveKitAPI(connector, key, secret, failover=False)
        self._admin = api.LiveKitAPI(url.replace("ws", "http", 1), key, secret, failover=False)
        self._twilio = TwilioSimulator(
            auth_token=twilio_token, outcome=Outcome(after=0.0), options=CallOptions(say_seconds=0.0)
        )
        await self._twilio.start()

    async def _leave(self) -> None:
        await self._twilio.stop()
        await self._client.aclose()
        await self._admin.aclose()

    async def _connect(self, room: str, direction: str = "outbound") -> str:
        request = api.ConnectTwilioCallRequest(
            twilio_call_direction=_DIRECTIONS[direction], room_name=room, participant_identity="caller"
        )
        return (await self._client.connector.connect_twilio_call(request)).connect_url

    async def _dial(self, room: str, says: NDArray[np.int16], direction: str = "outbound") -> OutboundCall:
        url = await self._connect(room, direction)
        call = self._twilio.dial("+15551234567", "+15557654321", Document(url.replace("ws", "http", 1)))
        call.say(says)
        await call.stream_started.wait(PATIENCE)
        self._calls.append(call)
        return call

    async def talk(self, rooms: list[str], seconds: float) -> None:
        """Adds a call that speaks for `seconds` to each room; returns when all calls have started."""
        for index, room in enumerate(rooms):
            await self._dial(room, sound.speech_like(seconds, index))

    async def bursts(self, rooms: list[str], count: int, seed: int) -> list[dict[str, Any]]:
        """Places a call to each room that says `count` bursts. Returns for each call and burst: the seconds until it
        came back (`delays`), the time at which it was said and its frequency (`said`), and the time at which it
        arrived at the telephone, before the telephone's buffer (`back`).

        The calls are inbound: the room is joined while the carrier already sends audio, so a backlog can form.
        """
        calls = [await self._dial(room, sound.NOTHING, "inbound") for room in rooms]
        # Only after all calls are set up: a join costs CPU in every process and must not affect this measurement.
        said = [sound.bursts(count, seed * 100 + index) for index in range(len(rooms))]
        tapes = [_tape(call) for call in calls]
        begins = [call.say(what.pcm) for call, what in zip(calls, said, strict=True)]
        for call in calls:
            await _until_said(call)
        measured = [
            _trips(call, tape, begin, what.begins)
            for call, tape, what, begin in zip(calls, tapes, said, begins, strict=True)
        ]
        await self.hang_up()
        return measured

    async def frames(self) -> dict[str, int]:
        """Number of 20 ms frames sent and heard by the active calls."""
        return {
            "sent": sum(call.stream.sent_frames for call in self._calls),
            "heard": sum(call.stream.received_bytes // 160 for call in self._calls),
        }

    async def hang_up(self) -> None:
        calls, self._calls = self._calls, []
        await asyncio.gather(*(call.hangup() for call in calls))
        for call in calls:
            if call.errors:
                raise RuntimeError(f"the carrier noted {call.errors}")
            self._twilio.forget(call)

    async def connect_times(self, direction: str, count: int, prefix: str) -> list[float]:
        """Seconds that each of `count` ConnectTwilioCall requests took, sent one by one, each for a new room."""
        times = []
        for index in range(count):
            room = f"{prefix}-{index}"
            started = time.perf_counter()
            await self._connect(room, direction)
            times.append(time.perf_counter() - started)
            if direction == "outbound":
                await self._admin.room.delete_room(api.DeleteRoomRequest(room=room))
        return times

    async def first_audio(self, direction: str, count: int, prefix: str) -> list[float]:
        """Seconds from the carrier's `start` to the first sound at another participant of the room."""
        url, key, secret = self._livekit
        times = []
        for index in range(count):
            room = f"{prefix}-{index}"
            listener = Listener()
            token = api.AccessToken(key, secret).with_identity("listener")
            await listener.join(url, token.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt())
            call = await self._dial(room, sound.loud(5.0), direction)
            times.append(await listener.first_sound() - await call.stream_started.wait())
            await self.hang_up()
            await listener.leave()
        return times

    async def burst(self, direction: str, count: int, prefix: str) -> dict[str, float]:
        """Starts `count` calls at once. Returns the number of served calls (outbound: a connect_url was returned;
        inbound: the call joined its room after all streams started together) and the seconds until the last one."""
        rooms = [f"{prefix}-{index}" for index in range(count)]
        started = time.perf_counter()
        urls = await asyncio.gather(*(self._connect(room, direction) for room in rooms), return_exceptions=True)
        got = [url for url in urls if isinstance(url, str)]
        if direction == "outbound":
            seconds = time.perf_counter() - started
            await asyncio.gather(
                *(self._admin.room.delete_room(api.DeleteRoomRequest(room=room)) for room in rooms),
                return_exceptions=True,
            )
            return {"served": len(got), "seconds": seconds}
        started = time.perf_counter()
        self._calls = [
            self._twilio.dial("+15551234567", "+15557654321", Document(url.replace("ws", "http", 1))) for url in got
        ]
        served = await self._active(count)
        seconds = time.perf_counter() - started
        calls, self._calls = self._calls, []
        await asyncio.gather(*(call.hangup() for call in calls))
        return {"served": served, "seconds": seconds}

    async def _active(self, wanted: int) -> int:
        """Returns the number of active calls in the connector, once it reaches `wanted` or BURST_PATIENCE is over."""
        active = 0
        async with aiohttp.ClientSession() as session:
            for _ in range(round(BURST_PATIENCE / 0.1)):
                async with session.get(f"{self._connector}/metrics") as response:
                    text = await response.text()
                active = sum(
                    round(float(line.rpartition(" ")[2]))
                    for line in text.splitlines()
                    if line.startswith('connector_calls_active{state="active"}')
                )
                if active >= wanted:
                    break
                await asyncio.sleep(0.1)
        return active

    async def close(self) -> None:
        if self._livekit[0]:
            await self._leave()

    def handlers(self) -> dict[str, Handler]:
        names = ("meet", "talk", "burst", "bursts", "frames", "hang_up", "connect_times", "first_audio", "close")
        return {name: self._handler(name) for name in names}

    def _handler(self, name: str) -> Handler:
        handler: Any = getattr(self, name)
        return handler  # type: ignore[no-any-return]


def _tape(call: OutboundCall) -> Tape:
    """Records all audio that the telephone receives from now on."""
    ear, tape = call.stream._ear, Tape()
    assert ear is not None
    receive = ear.receive

    def noted(now: float, ulaw: bytes) -> None:
        tape.add(now, ulaw_decode(ulaw))
        receive(now, ulaw)

    vars(ear)["receive"] = noted
    return tape


def _trips(call: OutboundCall, tape: Tape, begin: int, bursts: list[tuple[int, float]]) -> dict[str, Any]:
    assert call.stream.started.at is not None
    said = []
    for at, frequency in bursts:
        window = call.said[begin + at : begin + at + round(sound.LONGEST_DELAY * sound.RATE)]
        first = onset(window, frequency) or 0.0
        said.append((call.stream.started.at + (begin + at + first) / sound.RATE, frequency))
    return {
        "delays": delays(call.said[begin:], call.heard[begin:], bursts, sound.LONGEST_DELAY),
        "said": said,
        "back": [tape.when(at, frequency, sound.LONGEST_DELAY) for at, frequency in said],
    }


async def _until_said(call: OutboundCall) -> None:
    # A telephone speaks in real time: the remaining time is known, but there is no event for the end.
    while call.saying:  # noqa: ASYNC110
        await asyncio.sleep(call.saying)


async def start() -> dict[str, Handler]:
    return Callers().handlers()


if __name__ == "__main__":
    run_worker(start)
