"""The demo's call, from `ConnectTwilioCall` to the hang-up, shown live on a timeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np
from livekit import api
from numpy.typing import NDArray

from carrier_simulator import CarrierError, Moment, PhoneCall
from connector.audio.dtmf import detect
from demo import script
from demo.observer import Observer, participant_kinds
from demo.providers import Wanted
from demo.timeline import Timeline
from demo.world import World

ROOM = "demo"
CALLER = "caller"
TO, FROM = "+15550001111", "+15550002222"
RATE = 8000
CALLERS_KEY, AGENTS_KEY = "1", "5"
_TONE_PATIENCE = 3.0
_AFTERWARDS = 0.7
"""Seconds in which the end of the echo arrives."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The results of the call. Sound is int16 at 8 kHz; `said` and `heard` begin at the same moment."""

    carrier: str
    """The carrier's name."""
    said: NDArray[np.int16]
    heard: NDArray[np.int16]
    sentence_at: int
    """The sample of `said` at which the sentence begins."""
    hidden_while_ringing: bool
    kind: str
    digit_in_room: str
    tone_on_phone: str
    errors: tuple[CarrierError, ...]
    status: str


class Scene:
    def __init__(self, world: World, timeline: Timeline) -> None:
        self._world = world
        self._timeline = timeline
        self._watching: list[asyncio.Task[None]] = []

    async def play(self) -> Recording:
        """Plays the whole call. Raises TimeoutError, with the name of the missing event, if an event does not occur."""
        async with self._cleanup() as stack:
            connect_url = await self._create()
            kinds = await participant_kinds(self._world.livekit_api, ROOM)
            kind = kinds.get(CALLER, "nobody")
            self._timeline.show("room", f"the caller waits hidden, kind {kind}")
            observer = await self._observe(stack)
            await observer.agent_joined.wait()
            hidden = not observer.caller_seen.has_come()
            call = await self._dial(connect_url, observer)
            sentence_at = await self._talk(call)
            digit = await self._press(call, observer)
            tone = await self._ask_for_tone(call, observer)
            await self._hang_up(call, observer)
        name, stream = self._world.carrier.dialect.name, call.stream
        faults = (tuple(call.errors), call.status.value)
        return Recording(name, stream.said, stream.heard, sentence_at, hidden, kind, digit, tone, *faults)

    @asynccontextmanager
    async def _cleanup(self) -> AsyncIterator[AsyncExitStack]:
        async with AsyncExitStack() as stack:
            try:
                yield stack
            finally:
                for task in self._watching:
                    task.cancel()
                await asyncio.gather(*self._watching, return_exceptions=True)

    async def _create(self) -> str:
        self._timeline.begin()
        asked = time.monotonic()
        world = self._world
        token = api.AccessToken(world.livekit.api_key, world.livekit.api_secret)
        jwt = token.with_grants(api.VideoGrants(room_create=True)).to_jwt()
        wanted = Wanted(ROOM, CALLER, "A simulated caller", world.agent.name)
        connect_url = await world.account.connect(world.connector_api, world.connector.url, jwt, wanted)
        took = (time.monotonic() - asked) * 1000
        self._timeline.show("app", f"created: {world.account.method} gave a connect_url after {took:.0f} ms")
        return connect_url

    async def _observe(self, stack: AsyncExitStack) -> Observer:
        livekit = self._world.livekit
        observer = Observer(livekit.url, livekit.api_key, livekit.api_secret, ROOM, CALLER)
        self._watch(observer.agent_joined, "agent", "joined the room")
        self._watch(observer.caller_seen, "room", "revealed: the others see the caller")
        self._watch(observer.caller_loud, "room", "first audio from the caller")
        self._watch(observer.caller_gone, "room", "the caller has left")
        return await stack.enter_async_context(observer)

    async def _dial(self, connect_url: str, observer: Observer) -> PhoneCall:
        carrier = self._world.carrier
        # The same URL serves the document over http and the media over ws.
        url = "http" + connect_url.removeprefix("ws")
        await self._world.account.place(TO, FROM, url)
        call = await carrier.next_call()
        self._timeline.show("app", f"placed the call: {carrier.dialect.name} dials {TO}", call.created_at)
        self._watch(call.ringing, "phone", "rings")
        self._watch(call.answered, "phone", "answered")
        self._watch(call.stream_started, "phone", "its media stream is open")
        self._watch(call.first_sound, "phone", "first audio from the room: the agent's greeting")
        await call.stream_started.wait()
        await observer.caller_seen.wait()
        return call

    async def _talk(self, call: PhoneCall) -> int:
        began = await call.first_sound.wait()
        greeting, sentence = len(script.greeting()) / RATE, script.sentence()
        await asyncio.sleep(began + greeting + _AFTERWARDS - time.monotonic())
        sentence_at = call.say(sentence)
        self._timeline.show("phone", f"the caller says: {script.SENTENCE}")
        await asyncio.sleep(call.saying + _AFTERWARDS)
        return sentence_at

    async def _press(self, call: PhoneCall, observer: Observer) -> str:
        await call.press(CALLERS_KEY)
        self._timeline.show("phone", f"the caller presses {CALLERS_KEY}")
        async with asyncio.timeout(5):
            digit = await observer.digits.get()
        self._timeline.show("room", f"DTMF {digit} from the caller")
        return digit

    async def _ask_for_tone(self, call: PhoneCall, observer: Observer) -> str:
        asked_at = len(call.heard)
        await observer.tell(script.DTMF_TOPIC, AGENTS_KEY)
        self._timeline.show("agent", f"sends DTMF {AGENTS_KEY}")
        deadline = time.monotonic() + _TONE_PATIENCE
        while time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            tone = detect(call.heard[asked_at:], RATE)
            if tone:
                self._timeline.show("phone", f"the caller hears the tones of {tone}")
                return tone
        return ""

    async def _hang_up(self, call: PhoneCall, observer: Observer) -> None:
        await asyncio.sleep(_AFTERWARDS)
        self._timeline.show("phone", "the caller hangs up")
        await call.hangup()
        await observer.caller_gone.wait()
        await call.finished()

    def _watch(self, moment: Moment, place: str, what: str) -> None:
        async def show() -> None:
            self._timeline.show(place, what, await moment.wait(60))

        self._watching.append(asyncio.create_task(show()))
