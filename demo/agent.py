"""A real agent without a model: greets the caller, then echoes the caller's audio with the smallest possible delay.

`python -m demo.agent --name echo --url ws://…`, with LIVEKIT_API_KEY and LIVEKIT_API_SECRET in the
environment; prints `agent NAME registered` when LiveKit may send it jobs. It is an ordinary `livekit-agents`
worker, so it is dispatched, joins and leaves like any other agent.

A data message with the topic `demo.dtmf` makes it send its payload's digits as DTMF.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import AgentServer, AutoSubscribe, JobContext, JobExecutorType
from numpy.typing import NDArray

from connector.audio.dtmf import event_code
from demo import script

RATE = 48_000
"""Sample rate of Opus, so that no resampling is needed."""
FRAME = RATE // 100
"""Samples. With `queue_size_ms=0` the SDK accepts only frames of 10 ms."""
PHONES = (rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR, rtc.ParticipantKind.PARTICIPANT_KIND_SIP)
PEOPLE = (*PHONES, rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD)
_ECHO_BACKLOG = 5
"""Maximum number of 10 ms frames that wait to be echoed; older ones are dropped."""

_SUBSCRIPTION_PATIENCE = 0.3
LEFT_FOR_GOOD = (
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.ROOM_DELETED,
    rtc.DisconnectReason.USER_REJECTED,
)
"""As livekit-agents' RoomIO has it. After other reasons the caller may come back: the process that carries the call has
died, and another one goes on."""

log = logging.getLogger("demo.agent")


@dataclass(frozen=True, slots=True)
class Manner:
    """The agent's behaviour. `greeting` is int16 at 48 kHz, empty for none."""

    greeting: NDArray[np.int16]
    callers: tuple[rtc.ParticipantKind.ValueType, ...] = PHONES


class Conversation:
    """One job: one room, one caller."""

    def __init__(self, context: JobContext, manner: Manner) -> None:
        self._context = context
        self._manner = manner
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._caller: str | None = None
        self._greeted = False
        self._echoing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        room = self._context.room
        room.on("data_received", self._on_data)
        room.on("track_subscribed", self._on_track)
        room.on("participant_disconnected", self._on_left)
        await self._context.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
        track = rtc.LocalAudioTrack.create_audio_track("agent", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        publication = await room.local_participant.publish_track(track, options)
        # LiveKit cancels an entrypoint late, so the conversation is a task that `close` cancels.
        self._spawn(self._converse(publication))

    async def _converse(self, publication: rtc.LocalTrackPublication) -> None:
        try:
            caller = await self._context.wait_for_participant(kind=list(self._manner.callers))
        except RuntimeError as error:
            log.info("no participant joined: %s", error)
            return
        self._caller = caller.identity
        for found in caller.track_publications.values():
            if found.track:
                self._listen_to(found.track)
        # LiveKit reports the first subscriber, unless it is hidden: a hidden caller has subscribed already, a
        # visible caller subscribes within a moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SUBSCRIPTION_PATIENCE):
                await publication.wait_for_subscription()
        await self._greet()

    async def close(self, _reason: str = "") -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.aclose()

    async def _greet(self) -> None:
        """Plays the greeting in real time, paced by the clock, because the source has no queue to set the pace."""
        sound = self._manner.greeting
        began = time.monotonic()
        for index in range(len(sound) // FRAME):
            wait = began + index * 0.01 - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await self._source.capture_frame(_frame(sound[index * FRAME : (index + 1) * FRAME]))
        self._greeted = True

    def _on_track(
        self, track: rtc.Track, _publication: rtc.RemoteTrackPublication, speaker: rtc.RemoteParticipant
    ) -> None:
        if speaker.identity == self._caller:
            self._listen_to(track)

    def _listen_to(self, track: rtc.Track) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            # A caller who comes back has a new track, and the stream of the former one may go on with silence.
            if self._echoing is not None:
                self._echoing.cancel()
            self._echoing = self._spawn(self._echo(track))

    async def _echo(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, capacity=_ECHO_BACKLOG, sample_rate=RATE, num_channels=1, frame_size_ms=10)
        try:
            async for event in stream:
                if self._greeted:
                    await self._source.capture_frame(event.frame)
        finally:
            await stream.aclose()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic == script.DTMF_TOPIC:
            self._spawn(self._press(packet.data.decode("ascii", errors="ignore")))

    async def _press(self, digits: str) -> None:
        for digit in digits:
            await self._context.room.local_participant.publish_dtmf(code=event_code(digit), digit=digit)

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._caller and participant.disconnect_reason in LEFT_FOR_GOOD:
            self._context.shutdown("the caller left")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("the agent failed", exc_info=task.exception())


def _frame(sound: NDArray[np.int16]) -> rtc.AudioFrame:
    return rtc.AudioFrame(sound.tobytes(), RATE, 1, len(sound))


def build_worker(name: str, url: str, manner: Manner) -> AgentServer:
    """Creates a worker with its jobs in threads: a job starts at once, and an idle worker is one small process."""

    async def entrypoint(context: JobContext) -> None:
        conversation = Conversation(context, manner)
        context.add_shutdown_callback(conversation.close)
        await conversation.run()

    worker = AgentServer(
        job_executor_type=JobExecutorType.THREAD,
        num_idle_processes=1,
        load_fnc=lambda: 0.0,
        load_threshold=float("inf"),
        shutdown_process_timeout=2.0,
        ws_url=url,
        host="127.0.0.1",
        port=0,
    )
    worker.rtc_session(entrypoint, agent_name=name)
    return worker


async def serve(name: str, url: str, manner: Manner) -> None:
    """Runs the worker until SIGTERM or SIGINT."""
    worker = build_worker(name, url, manner)
    worker.on("worker_registered", lambda *_: print(f"agent {name} registered", flush=True))
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(worker.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await worker.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.agent", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="echo", help="the agent's name, for dispatches")
    parser.add_argument("--url", required=True, help="LiveKit's URL")
    parser.add_argument("--greeting", default=script.GREETING, help="the first sentence; empty: none")
    parser.add_argument("--anybody", action="store_true", help="also talk with ordinary participants, not only phones")
    parser.add_argument("--log-level", default="WARNING")
    options = parser.parse_args()
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    greeting = script.greeting(options.greeting, RATE) if options.greeting else np.zeros(0, np.int16)
    manner = Manner(greeting, PEOPLE if options.anybody else PHONES)
    asyncio.run(serve(options.name, options.url, manner))


if __name__ == "__main__":
    main()
