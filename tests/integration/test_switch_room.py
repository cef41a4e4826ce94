"""A caller moves to another room while the phone call goes on, or stays where it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from livekit import api

from carrier_simulator import OutboundCall
from connector.app import Connector
from connector.errors import Unavailable
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from tests.integration.ears import loudness
from tests.integration.gate import Gate, gate_to
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    RATE,
    Guest,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    strength,
    tone,
    until,
)
from tests.integration.rpc import Rpc, RpcFailed, grpc_connector, rpc_over
from tests.integration.scene import ended_calls

FROM_CALLER, HERE, THERE = 700, 1100, 1900
"""Hz: what the caller says, and what is said in the one and in the other room."""
LOUD = 2000
MOST_SILENCE = 1.0
AGENT = "agent-of-the-other-room"


@dataclass
class Talk:
    """A call in a room with a guest, and another room with another guest."""

    stage: Stage
    connector: Connector
    rpc: Rpc
    phone: OutboundCall
    here: Guest
    there: Guest
    room: str
    other: str

    @property
    def call_id(self) -> str:
        call_id: str = only_session(self.connector).call_id
        return call_id

    async def switch(self, room: str = "", *agents: str) -> Any:
        return await self.rpc.switch(self.call_id, room or self.other, *agents)

    async def assert_heard_in(self, guest: Guest, frequency: float) -> None:
        """Sound both ways, now."""
        begins, pieces = len(self.phone.heard), len(guest.heard.get("caller", []))
        await until(lambda: strength(self.phone.heard[begins:][-RATE // 4 :], frequency) > LOUD)
        await guest.until(lambda: _says(guest, pieces))

    async def assert_still_here(self) -> None:
        assert only_session(self.connector).record.room == self.room
        assert "caller" in await self.stage.participants(self.room)
        assert not self.here.saw("participant_disconnected")
        await self.assert_heard_in(self.here, HERE)

    async def callers(self) -> tuple[bool, bool]:
        return tuple(["caller" in await self.stage.participants(room) for room in (self.room, self.other)])  # type: ignore[return-value]


def _says(guest: Guest, after: int) -> bool:
    last = guest.heard.get("caller", [])[after:][-10:]
    return len(last) == 10 and strength(np.concatenate(last), FROM_CALLER) > LOUD


@contextlib.asynccontextmanager
async def talking(stage: Stage, room: str, direction: Any = OUTBOUND, **settings: Any) -> AsyncIterator[Talk]:
    connector = await grpc_connector(stage, **settings)
    twilio = await stage.twilio()
    other = f"{room}-other"
    here, there = await stage.guest(room, "guest-here"), await stage.guest(other, "guest-there")
    fields = {"participant_name": "The Caller", "participant_metadata": "data", "participant_attributes": {"mine": "1"}}
    phone = place(twilio, await connect_call(stage.client(connector), room, direction, **fields))
    await here.event("track_subscribed")
    await until(lambda: only_session(connector).state is CallState.ACTIVE)
    for guest, frequency in ((here, HERE), (there, THERE)):
        await guest.publish()
        guest.start_saying(tone(frequency, 60))
    phone.say(tone(FROM_CALLER, 60))
    async with rpc_over("twirp json", stage, connector) as rpc:
        talk = Talk(stage, connector, rpc, phone, here, there, room, other)
        await talk.assert_heard_in(here, HERE)
        yield talk


def silence_for_the_caller(talk: Talk) -> float:
    """Seconds between the last of the one room and the first of the other, as the phone played them."""
    heard = talk.phone.heard
    last_here = np.flatnonzero(loudness(heard, HERE) > LOUD)[-1]
    first_there = np.flatnonzero(loudness(heard, THERE) > LOUD)[0]
    return float(first_there - last_here - 1) / 50


def silence_from_the_caller(talk: Talk) -> float:
    """Seconds between the last that the one room heard of the caller and the first that the other did."""

    def times(guest: Guest) -> list[float]:
        pairs = zip(guest.heard["caller"], guest.heard_at["caller"], strict=True)
        return [at for piece, at in pairs if strength(piece, FROM_CALLER) > LOUD]

    return times(talk.there)[0] - times(talk.here)[-1]


@pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
async def test_the_caller_is_in_the_other_room(stage: Stage, room: str, direction: Any) -> None:
    async with talking(stage, room, direction) as talk:
        answer = await talk.switch()
        assert answer.room_name == talk.other
        await talk.assert_heard_in(talk.there, THERE)
        await until(lambda: strength(talk.phone.heard[-RATE // 2 :], HERE) < 100)
        await stage.gone(room, "caller")
        assert await talk.callers() == (False, True)
        assert len(talk.phone.streams) == 1

        await talk.phone.hangup()
        record = await ended(talk.connector)
        assert (record.room, record.end_reason) == (talk.other, EndReason.CARRIER_HANGUP)
        assert [event for event, _ in record.timelog][-2:] == ["call-update", "call-hangup"]
        await stage.gone(talk.other, "caller")


@pytest.mark.alone
@pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
async def test_the_move_takes_less_than_a_second_of_silence(stage: Stage, room: str, direction: Any) -> None:
    async with talking(stage, room, direction) as talk:
        await talk.switch()
        await talk.assert_heard_in(talk.there, THERE)
        silences = silence_for_the_caller(talk), silence_from_the_caller(talk)
        print(f"seconds of silence to and from the caller: {silences[0]:.2f} {silences[1]:.2f}")
        assert max(silences) < MOST_SILENCE, silences


async def test_what_the_caller_is_moves_with_it(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        request = api.UpdateParticipantRequest(
            room=room, identity="caller", metadata="a note", attributes={"added": "in the room"}
        )
        await stage.admin.room.update_participant(request)
        await until(
            lambda: only_session(talk.connector).presence.room.participant.attributes.get("added") == "in the room"
        )
        await talk.switch("", AGENT)
        (joined,) = await talk.there.event("participant_connected", lambda person: person.identity == "caller")
        caller = (await stage.participants(talk.other))["caller"]
        assert (joined.identity, caller.name, caller.metadata) == ("caller", "The Caller", "a note")
        assert caller.kind == 7
        attributes = dict(caller.attributes)
        assert (attributes["mine"], attributes["added"]) == ("1", "in the room")
        assert attributes["connector.callStatus"] == "active"
        assert attributes["twilio.callSid"] == talk.phone.sid
        listed = await stage.admin.agent_dispatch.list_dispatch(talk.other)
        assert [dispatch.agent_name for dispatch in listed if dispatch.agent_name] == [AGENT]
        assert not [d for d in await stage.admin.agent_dispatch.list_dispatch(room) if d.agent_name]


async def test_a_room_that_does_not_exist_is_made_and_the_former_one_may_go(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        new = f"{room}-new"
        await talk.switch(new, AGENT)
        assert (await stage.participants(new)).keys() == {"caller"}
        await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
        guest = await stage.guest(new, "guest-new")
        await guest.publish()
        guest.start_saying(tone(2500, 30))
        await talk.assert_heard_in(guest, 2500)
        await stage.admin.room.delete_room(api.DeleteRoomRequest(room=new))
        assert (await ended(talk.connector)).end_reason is EndReason.ROOM_DELETED


async def test_there_and_back_again(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        for _ in range(2):
            await talk.switch(talk.other)
            await talk.assert_heard_in(talk.there, THERE)
            await talk.switch(talk.room)
            await talk.assert_heard_in(talk.here, HERE)
        assert [event for event, _ in only_session(talk.connector).record.timelog].count("call-update") == 4
        await talk.rpc.clear(talk.call_id)
        await talk.here.room.local_participant.publish_dtmf(code=5, digit="5")
        await until(lambda: talk.connector.metrics.dtmf.labels("to_carrier")._value.get() == 1)
        await talk.phone.press("7")
        await talk.here.event("sip_dtmf_received")
        assert not talk.there.saw("sip_dtmf_received")


async def test_to_the_room_where_it_is_nothing_happens(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        assert (await talk.switch(room)).room_name == room
        await talk.assert_still_here()
        assert "call-update" not in [event for event, _ in only_session(talk.connector).record.timelog]


async def test_it_does_not_put_out_somebody_who_has_its_identity_there(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        namesake = await stage.guest(talk.other, "caller")
        with pytest.raises(RpcFailed, match="'caller'") as refused:
            await talk.switch()
        assert refused.value.code == "failed_precondition"
        await talk.assert_still_here()
        assert not namesake.saw("disconnected")


@pytest.fixture
async def gate(stage: Stage) -> AsyncIterator[Gate]:
    async with gate_to(int(stage.livekit.url.rsplit(":", 1)[1])) as gate:
        yield gate


@pytest.mark.parametrize("manner", ["close", "bad gateway", "hang"])
async def test_when_livekit_does_not_let_the_caller_in_it_stays_where_it_is(
    gate: Gate, stage: Stage, room: str, manner: Any
) -> None:
    async with talking(stage, room, livekit_url=gate.url) as talk:
        gate.signalling = manner
        with pytest.raises(RpcFailed) as refused:
            await talk.switch(f"{room}-new")
        assert refused.value.code == "unavailable"
        assert f"{room}-new" not in await stage.rooms()
        await talk.assert_still_here()
        gate.signalling = "pass"
        gate.opened.set()
        await talk.switch()
        await talk.assert_heard_in(talk.there, THERE)


@pytest.mark.parametrize("step", ["has", "ensure_room"])
async def test_when_livekits_api_fails_it_stays_where_it_is(
    stage: Stage, room: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(stage, room) as talk:

        async def fail(*_: Any) -> None:
            raise Unavailable("LiveKit is gone")

        monkeypatch.setattr(talk.connector.admin, step, fail)
        with pytest.raises(RpcFailed, match="LiveKit is gone") as refused:
            await talk.switch(f"{room}-new")
        assert refused.value.code == "unavailable"
        await talk.assert_still_here()
        assert f"{room}-new" not in await stage.rooms()


async def test_of_two_moves_at_once_one_is_refused(stage: Stage, room: str) -> None:
    async with talking(stage, room) as talk:
        outcomes = await asyncio.gather(talk.switch(), talk.switch(f"{room}-third"), return_exceptions=True)
        (refused,) = [outcome for outcome in outcomes if isinstance(outcome, RpcFailed)]
        assert refused.code == "failed_precondition"
        (moved,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        rooms = {name: "caller" in await stage.participants(name) for name in (talk.other, f"{room}-third")}
        assert [name for name, is_in in rooms.items() if is_in] == [moved.room_name]


async def test_an_end_in_the_middle_of_a_move_leaves_nobody_in_either_room(gate: Gate, stage: Stage, room: str) -> None:
    async with talking(stage, room, livekit_url=gate.url) as talk:
        gate.signalling = "hang"
        before = gate.signalling_attempts
        moving = asyncio.create_task(talk.switch())
        await until(lambda: gate.signalling_attempts > before)
        await talk.phone.hangup()
        with pytest.raises(RpcFailed) as refused:
            await moving
        assert refused.value.code == "failed_precondition"
        gate.signalling = "pass"
        gate.opened.set()
        assert (await ended(talk.connector)).end_reason is EndReason.CARRIER_HANGUP
        await stage.gone(room, "caller")
        await stage.gone(talk.other, "caller")
        assert ended_calls(talk.connector) == {"carrier_hangup": 1.0}


async def test_a_client_that_goes_away_leaves_the_move_whole(gate: Gate, stage: Stage, room: str) -> None:
    async with talking(stage, room, livekit_url=gate.url) as talk:
        gate.signalling = "hang"
        before = gate.signalling_attempts
        moving = asyncio.create_task(talk.switch())
        await until(lambda: gate.signalling_attempts > before)
        moving.cancel()
        await asyncio.wait([moving])
        gate.signalling = "pass"
        gate.opened.set()
        await until(lambda: only_session(talk.connector).record.room == talk.other)
        await talk.assert_heard_in(talk.there, THERE)
        await stage.gone(room, "caller")


async def test_only_an_active_call_is_moved(stage: Stage, room: str) -> None:
    connector = await grpc_connector(stage)
    await connect_call(stage.client(connector), room)
    call_id = only_session(connector).call_id
    for transport in ("twirp json", "twirp protobuf", "grpc"):
        async with rpc_over(transport, stage, connector) as rpc:
            for arguments, code in (
                ((call_id, "elsewhere"), "failed_precondition"),
                ((call_id, ""), "invalid_argument"),
                ((call_id, "x" * 300), "invalid_argument"),
                (("call_nobody", "elsewhere"), "not_found"),
                (("", "elsewhere"), "invalid_argument"),
            ):
                with pytest.raises(RpcFailed) as refused:
                    await rpc.switch(*arguments)
                assert refused.value.code == code, json.dumps(arguments)
    assert "elsewhere" not in await stage.rooms()
