"""Processes that die or stop with a live call: another one carries on, and a real AgentSession talks on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from livekit import api, rtc
from livekit.agents import Agent, AgentSession, ModelSettings, stt

from carrier_simulator import Fault, OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.model.end_reason import EndReason
from demo.connector_process import ConnectorProcess
from tests.integration.harness import (
    INBOUND,
    PATIENCE,
    RATE,
    TWILIO_TOKEN,
    Stage,
    connect_call,
    ended,
    place,
    strength,
    tone,
    until,
)

PUBLIC = "https://voice.example.com"
CALLEE, OURS = "+15551234567", "+15557654321"
LONGEST_GAP = 2.0
"""Seconds that a caller may hear nothing."""
pytestmark = pytest.mark.timeout(120)


class Deaf(stt.STT[Any]):
    """No model: the agent's own `stt_node` gets the caller's audio."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

    async def _recognize_impl(self, *args: Any, **kwargs: Any) -> stt.SpeechEvent:
        raise NotImplementedError


class Listener(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="", stt=Deaf())
        self.heard = np.zeros(0, np.int16)
        """The last second, at 24 kHz or the rate of the session's input."""
        self.rate = 0

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncIterator[stt.SpeechEvent]:
        async for frame in audio:
            self.rate = frame.sample_rate
            self.heard = np.concatenate((self.heard, np.frombuffer(frame.data, np.int16)))[-self.rate :]
            if self.rate < 0:
                yield stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH)  # Never: it makes this a generator.

    def hears(self, frequency: int) -> bool:
        """Whether the loudest frequency of the last quarter of a second is this one."""
        sound = self.heard[-self.rate // 4 :]
        if not self.rate or len(sound) < self.rate // 4 or np.abs(sound).max() < 1000:
            return False
        loudest = np.argmax(np.abs(np.fft.rfft(sound))) * self.rate / len(sound)
        return bool(abs(loudest - frequency) < 20)


async def spoken(frequency: int, seconds: float, rate: int = 24_000) -> AsyncIterator[rtc.AudioFrame]:
    """A sentence of the agent."""
    samples = (8000 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.int16)
    for start in range(0, len(samples), rate // 100):
        piece = samples[start : start + rate // 100]
        yield rtc.AudioFrame(piece.tobytes(), rate, 1, len(piece))


def environment(stage: Stage, twilio: TwilioSimulator, store: str, name: str) -> dict[str, str]:
    return {
        **stage.livekit.environment,
        "CONNECTOR_STORE": store,
        "CONNECTOR_INSTANCE": name,
        "CONNECTOR_PUBLIC_URL": PUBLIC,
        "CONNECTOR_HANDOVER": "at_once",
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "TWILIO_API_URL": twilio.base_url,
    }


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


async def victims_call(stage: Stage, room: str, twilio: TwilioSimulator, victim: ConnectorProcess) -> OutboundCall:
    client = api.LiveKitAPI(victim.url, stage.livekit.api_key, stage.livekit.api_secret, failover=False)
    try:
        url = await connect_call(client, room, INBOUND)
    finally:
        await client.aclose()
    twilio.web.routes[PUBLIC] = victim.url
    return place(twilio, url)


async def heir_of(stage: Stage, twilio: TwilioSimulator, store: str) -> Connector:
    carrier = {"twilio_account_sid": twilio.account_sid, "twilio_api_url": twilio.base_url}
    return await stage.connector(instance="heir", store=store, public_url=PUBLIC, **carrier)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
async def test_an_agents_session_goes_on_with_the_caller_of_another_process(
    stage: Stage, room: str, twilio: TwilioSimulator, tmp_path: Path, how: signal.Signals
) -> None:
    store = f"sqlite:///{tmp_path / 'shared.db'}"
    heir = await heir_of(stage, twilio, store)
    async with ConnectorProcess(environment(stage, twilio, store, "victim")) as victim:
        call = await victims_call(stage, room, twilio, victim)
        guest = await stage.guest(room)
        agent = Listener()
        session: AgentSession[None] = AgentSession(vad=None, turn_detection="manual")
        closed: list[Any] = []
        session.on("close", closed.append)
        await session.start(agent, room=guest.room)
        try:
            await guest.event("track_subscribed")
            await call.stream_started.wait()
            sentence = session.say("a long one", audio=spoken(900, 30))
            await until(lambda: strength(call.heard[-RATE // 4 :], 900) > 2000)
            await stage.admin.room.update_participant(
                api.UpdateParticipantRequest(
                    room=room, identity="caller", metadata="a note", attributes={"language": "fr"}
                )
            )
            twilio.web.routes[PUBLIC] = f"http://127.0.0.1:{heir.port}"
            os.kill(victim.pid, how)
            killed = time.monotonic()
            await until(lambda: len(call.streams) == 2 and call.stream.started.has_come())
            heard = len(call.heard)
            await until(lambda: strength(call.heard[max(heard, len(call.heard) - RATE // 8) :], 900) > 2000)
            gap = time.monotonic() - killed
            call.say(tone(600, 10))
            await until(lambda: agent.hears(600))
            assert not closed
            assert not sentence.done()
            assert gap < LONGEST_GAP
            (caller,) = guest.room.remote_participants.values()
            assert (caller.identity, caller.metadata, caller.attributes["language"]) == ("caller", "a note", "fr")
            assert caller.attributes["connector.callStatus"] == "active"
        finally:
            await session.aclose()
        await call.hangup()
        record = await ended(heir)
        assert (record.owner, record.end_reason) == ("heir", EndReason.CARRIER_HANGUP)
        events = [event for event, _ in record.timelog]
        assert (events.count("call-answered"), events.count("call-hangup")) == (1, 1)
        assert await heir.store.waiting.list() == []
        await stage.gone(room, "caller", PATIENCE)
        # Twilio's debugger tells of the close that was not a clean one, and of nothing else.
        assert [error.code for error in call.errors] == [Fault.STREAM_CLOSED]
