"""Several processes share a store: whichever the stream reaches has the call, and no other touches it any more."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import api

from carrier_simulator import Document, OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.call.registry import take_over
from connector.call.registry.lease import RENEW_EVERY
from connector.model.call import CallRecord, CallState
from connector.model.end_reason import EndReason
from demo.connector_process import ConnectorProcess
from demo.livekit_server import LiveKitServer
from demo.redis_server import RedisServer
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    RATE,
    TWILIO_TOKEN,
    Guest,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    stage_on,
    strength,
    tone,
    until,
)
from tests.integration.rpc import rpc_over
from tests.integration.scene import ended_calls
from tests.integration.stranger import FORM, fetch, open_socket, socket_status, start_stream

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
AGENT = "agent-of-the-takeover"
DEAD = "call_of_the_dead"


def at(connector: Connector, url: str) -> str:
    """The same URL at another process, as a load balancer would have it."""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://127.0.0.1:{connector.port}/{rest.split('/', 1)[1]}"


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the processes keep things, as CONNECTOR_STORE has it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shared.db'}"
        return
    server = RedisServer(folder=tmp_path)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
async def stage(shared: str, livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """Over before what its connectors keep things in: they would wait for it."""
    async with stage_on(livekit, tmp_path) as stage:
        yield stage


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


async def pair(stage: Stage, twilio: TwilioSimulator, shared: str, **settings: Any) -> tuple[Connector, Connector]:
    """The process that makes the calls, and another one."""
    carrier = {"twilio_account_sid": twilio.account_sid, "twilio_api_url": twilio.base_url}
    settings = {"store": shared} | carrier | settings
    maker = await stage.connector(instance="maker", **settings)
    return maker, await stage.connector(instance="taker", **settings)


def dial(twilio: TwilioSimulator, stream: str) -> OutboundCall:
    """A call whose stream goes there at once, without a fetch of a document."""
    inline = f'<Response><Connect><Stream url="{stream}"/></Connect></Response>'
    return twilio.dial("+15551234567", "+15557654321", Document(inline=inline))


async def assert_both_are_heard(call: OutboundCall, guest: Guest) -> None:
    """Each a tone of its own, in real sound."""
    await guest.publish()
    guest.start_saying(tone(1500, 3))
    call.say(tone(700, 3))
    await until(lambda: strength(call.heard[-RATE // 2 :], 1500) > 2000)
    await guest.until(lambda: strength(guest.sound_of("caller")[-RATE // 2 :], 700) > 2000)


async def record_of(connector: Connector) -> CallRecord:
    (record,) = await connector.store.list_calls(2)
    return record


def assert_stepped_aside(connector: Connector) -> None:
    """Its call goes on elsewhere: nothing was ended, nothing is held."""
    assert not connector.calls.live()
    assert ended_calls(connector) == {}


async def dispatched(stage: Stage, room: str) -> list[str]:
    """Without LiveKit's own dispatch for unnamed agents."""
    listed = await stage.admin.agent_dispatch.list_dispatch(room)
    return [dispatch.agent_name for dispatch in listed if dispatch.agent_name]


@BOTH
async def test_the_stream_of_a_waiting_call_is_carried_where_it_arrives(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, direction: Any
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    guest = await stage.guest(room)
    url = await connect_call(stage.client(maker), room, direction, agents=[api.RoomAgentDispatch(agent_name=AGENT)])
    former = only_session(maker)
    call = dial(twilio, at(taker, url))
    await guest.event("track_subscribed")
    await until(lambda: [each.state for each in taker.calls.live()] == [CallState.ACTIVE])
    if direction == OUTBOUND:
        # Its participant was put out by the new one. Of an inbound call it holds nothing but the memory.
        await former.finished.wait()
        assert_stepped_aside(maker)
    await assert_both_are_heard(call, guest)

    assert [args[0].identity for args in guest.saw("participant_connected")] == ["caller"]
    assert not guest.saw("participant_disconnected")
    assert await dispatched(stage, room) == [AGENT]
    record = await record_of(maker)
    assert (record.owner, record.state, record.carrier_call_id) == ("taker", CallState.ACTIVE, call.sid)
    await call.hangup()
    record = await ended(taker)
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert ended_calls(taker) == {"carrier_hangup": 1.0}
    events = ["call-started", "call-ringing", "call-answered", "call-hangup"]
    assert [event for event, _ in record.timelog] == [e for e in events if direction == OUTBOUND or "ring" not in e]
    await stage.gone(room, "caller")


async def test_of_an_inbound_call_that_another_process_took_the_maker_lets_go_when_its_time_is_over(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    maker, taker = await pair(stage, twilio, shared, connect_timeout=2.0)
    url = await connect_call(stage.client(maker), room, INBOUND)
    former = only_session(maker)
    call = dial(twilio, at(taker, url))
    await until(lambda: [each.state for each in taker.calls.live()] == [CallState.ACTIVE])
    await asyncio.wait_for(former.finished.wait(), PATIENCE)
    assert_stepped_aside(maker)
    assert (await record_of(maker)).state is CallState.ACTIVE
    await call.hangup()
    assert (await ended(taker)).end_reason is EndReason.CARRIER_HANGUP


@pytest.mark.parametrize("fetched_at", ["maker", "taker"])
@pytest.mark.parametrize("streamed_to", ["maker", "taker"])
async def test_document_and_stream_may_go_to_different_processes(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, fetched_at: str, streamed_to: str
) -> None:
    processes = dict(zip(("maker", "taker"), await pair(stage, twilio, shared), strict=True))
    url = await connect_call(stage.client(processes["maker"]), room)
    http = await stage.http()
    await fetch(http, at(processes[fetched_at], url), FORM)
    socket = await open_socket(http, at(processes[streamed_to], url))
    await start_stream(socket)
    there = processes[streamed_to]
    await until(lambda: [each.state for each in there.calls.live()] == [CallState.ACTIVE])
    caller = (await stage.participants(room))["caller"]
    known = dict(FORM)
    assert caller.attributes["phone.from"] == known["From"]
    assert caller.attributes["phone.to"] == known["To"]
    assert caller.attributes["twilio.callSid"] == known["CallSid"]
    assert (await record_of(there)).to_number == known["To"]
    await socket.close()
    await ended(there)


async def test_a_document_that_another_process_answers_gives_the_stream_its_time(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    """The process that made the call asks the store before it gives up."""
    maker, taker = await pair(stage, twilio, shared, connect_timeout=2.0, answer_grace=6.0)
    url = await connect_call(stage.client(maker), room)
    call = only_session(maker)
    http = await stage.http()
    assert (await fetch(http, at(taker, url), FORM)).status == 200
    before = call.deadline
    await until(lambda: call.deadline > before)
    assert call.record.to_number == dict(FORM)["To"]
    assert call.state is CallState.RINGING
    socket = await open_socket(http, url)
    await start_stream(socket)
    await until(lambda: call.state is CallState.ACTIVE)
    await socket.close()
    assert (await ended(maker)).end_reason is EndReason.CARRIER_CLOSED


@pytest.mark.parametrize("at_one", ["maker", "taker"])
async def test_another_carrier_call_cannot_fetch_the_document_at_another_process(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, at_one: str
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    one, other = (maker, taker) if at_one == "maker" else (taker, maker)
    url = await connect_call(stage.client(maker), room)
    http = await stage.http()
    foreign = (("CallSid", "CA" + "9" * 32), *FORM[1:])
    assert (await fetch(http, at(one, url), FORM)).status == 200
    assert (await fetch(http, at(taker, url), FORM)).status == 200
    if other is taker or one is taker:
        assert (await fetch(http, at(taker, url), foreign)).status == 410


@BOTH
async def test_of_sockets_at_all_processes_at_once_one_gets_in(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, direction: Any
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    processes = (maker, taker, await stage.connector(store=maker.settings.store, instance="third"))
    http = await stage.http()
    for _ in range(4):
        url = await connect_call(stage.client(maker), room, direction)
        outcomes = await asyncio.gather(
            *(open_socket(http, at(processes[n % 3], url)) for n in range(9)), return_exceptions=True
        )
        sockets = [outcome for outcome in outcomes if isinstance(outcome, aiohttp.ClientWebSocketResponse)]
        refusals = [outcome.status for outcome in outcomes if isinstance(outcome, aiohttp.WSServerHandshakeError)]
        assert (len(sockets), refusals) == (1, [410] * 8)
        await start_stream(sockets[0])
        await until(lambda: CallState.ACTIVE in [call.state for one in processes for call in one.calls.live()])
        assert (await stage.participants(room)).keys() == {"caller"}
        await sockets[0].close()
        await until(lambda: not [call for one in processes for call in one.calls.live() if call.claimed])
    reasons = [record.end_reason for record in await maker.store.list_calls(10)]
    assert reasons == [EndReason.CARRIER_CLOSED] * 4


async def test_a_stranger_who_takes_the_hidden_participants_identity_is_no_take_over(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    url = await connect_call(stage.client(maker), room)
    await stage.guest(room, "caller")
    assert (await ended(maker)).end_reason is EndReason.DUPLICATE_IDENTITY
    http = await stage.http()
    assert await socket_status(http, at(taker, url)) == 410
    assert await maker.store.waiting.list() == []


async def test_what_waits_in_vain_is_ended_once_and_refused_everywhere(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    maker, taker = await pair(stage, twilio, shared, connect_timeout=2.0)
    url = await connect_call(stage.client(maker), room)
    assert (await ended(maker)).end_reason is EndReason.CONNECT_TIMEOUT
    http = await stage.http()
    for one in (maker, taker):
        assert await socket_status(http, at(one, url)) == 410
        assert (await fetch(http, at(one, url), FORM)).status == 410
    assert await maker.store.waiting.list() == []
    assert (ended_calls(maker), ended_calls(taker)) == ({"connect_timeout": 1.0}, {})


# Commands at another process than the one that has the call


@BOTH
async def test_a_waiting_call_is_ended_from_any_process(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, direction: Any
) -> None:
    maker, taker = await pair(stage, twilio, shared, connect_timeout=2.0)
    url = await connect_call(stage.client(maker), room, direction)
    former = only_session(maker)
    async with rpc_over("twirp json", stage, taker) as rpc:
        answer = await rpc.end(former.call_id)
    assert (answer.end_reason, answer.to) == ("ended_by_api", "")
    await stage.gone(room, "caller")
    await former.finished.wait()
    assert_stepped_aside(maker)
    assert ended_calls(taker) == {"ended_by_api": 1.0}
    assert [event for event, _ in (await record_of(maker)).timelog][-1] == "call-missed"
    assert await socket_status(await stage.http(), url) == 410


async def test_an_active_call_is_commanded_and_ended_from_any_process(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    maker, other = await pair(stage, twilio, shared)
    call = place(twilio, await connect_call(stage.client(maker), room))
    await until(lambda: only_session(maker).state is CallState.ACTIVE)
    call_id = only_session(maker).call_id
    async with rpc_over("twirp json", stage, other) as rpc:
        # The record is saved a moment after the call has become active.
        async with asyncio.timeout(PATIENCE):
            while (await rpc.get(call_id)).state != 3:  # noqa: ASYNC110 - the store announces nothing
                await asyncio.sleep(0.02)
        await rpc.dtmf(call_id, "1")
        await rpc.clear(call_id)
        assert (await rpc.switch(call_id, f"{room}-elsewhere")).room_name == f"{room}-elsewhere"
        answer = await rpc.end(call_id)
    assert answer.end_reason == "ended_by_api"
    await call.finished()
    assert (ended_calls(maker), ended_calls(other)) == ({"ended_by_api": 1.0}, {})


async def test_a_busy_signal_that_reaches_another_process_ends_the_wait(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    url = await connect_call(stage.client(maker), room)
    former = only_session(maker)
    form = (*FORM, ("CallStatus", "busy"), ("SequenceNumber", "3"))
    assert (await fetch(await stage.http(), at(taker, url) + "/status", form)).status == 204
    await former.finished.wait()
    await stage.gone(room, "caller")
    record = await record_of(maker)
    assert (record.end_reason, record.carrier_status) == (EndReason.BUSY, "busy")
    assert_stepped_aside(maker)


# Processes that die


async def test_a_restart_leaves_a_waiting_call_to_the_others_and_a_sweep_ends_it_when_nobody_came(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, taker = await pair(stage, twilio, shared)
    await connect_call(stage.client(maker), room)
    # As after a crash: the entry and the record stay, of a process of which nothing else is left.
    (entry,) = await maker.store.waiting.list()
    record = replace(await record_of(maker), call_id=DEAD, owner="dead")
    request = replace(entry.request, call_id=DEAD)
    await maker.store.save_call(record)
    await maker.store.waiting.insert(replace(entry, id=DEAD, request=request, owner="dead", place=""))
    successor = await stage.connector(store=maker.settings.store, instance="dead")
    found = await successor.store.get_call(DEAD)
    assert found is not None
    assert found.end_reason is None
    await taker.calls.take_overs.sweep()
    assert not taker.calls.live()
    monkeypatch.setattr(take_over, "ORPHAN_GRACE", -1e6)
    await asyncio.gather(taker.calls.take_overs.sweep(), successor.calls.take_overs.sweep())
    await until(lambda: not taker.calls.live() and not successor.calls.live())
    dead = await ended(taker, DEAD)
    assert dead.end_reason is EndReason.INTERRUPTED
    assert dead.timelog[-1][0] == "call-missed"
    assert ended_calls(taker).get("interrupted", 0) + ended_calls(successor).get("interrupted", 0) == 2
    assert await maker.store.waiting.list() == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("meanwhile", ["the room stays", "the room closes"])
async def test_a_call_outlives_the_process_that_was_killed_while_it_waited(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str, meanwhile: str
) -> None:
    environment = {**stage.livekit.environment, "CONNECTOR_STORE": shared, "TWILIO_AUTH_TOKEN": TWILIO_TOKEN}
    async with (
        ConnectorProcess(environment | {"CONNECTOR_INSTANCE": "victim"}) as victim,
        ConnectorProcess(environment | {"CONNECTOR_INSTANCE": "heir"}) as heir,
    ):
        client = api.LiveKitAPI(victim.url, stage.livekit.api_key, stage.livekit.api_secret, failover=False)
        try:
            url = await connect_call(client, room, OUTBOUND, agents=[api.RoomAgentDispatch(agent_name=AGENT)])
        finally:
            await client.aclose()
        guest = await stage.guest(room)
        os.kill(victim.pid, signal.SIGKILL)
        there = "ws" + heir.url.removeprefix("http") + "/" + url.split("/", 3)[3]
        if meanwhile == "the room closes":
            # As LiveKit does when nobody but agents is left; they are gone with it.
            await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
            call = dial(twilio, there)
            await call.stream_started.wait()
            while "caller" not in await stage.participants(room):  # noqa: ASYNC110 - nobody is there to be told
                await asyncio.sleep(0.05)
            guest = await stage.guest(room, "another guest")
        else:
            call = dial(twilio, there)
        await guest.event("track_subscribed")
        await assert_both_are_heard(call, guest)
        if meanwhile == "the room stays":
            assert [args[0].identity for args in guest.saw("participant_connected")] == ["caller"]
        assert await dispatched(stage, room) == [AGENT]
        await call.hangup()
        await stage.gone(room, "caller")
        # The victim's successor finds nothing that died with it.
        successor = await stage.connector(store=shared, instance="victim")
        record = await record_of(successor)
        assert (record.owner, record.end_reason) == ("heir", EndReason.CARRIER_HANGUP)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_call_that_died_with_its_process_ends_when_it_died_and_its_caller_leaves_the_room(
    stage: Stage, room: str, twilio: TwilioSimulator, shared: str
) -> None:
    environment = {**stage.livekit.environment, "CONNECTOR_STORE": shared, "TWILIO_AUTH_TOKEN": TWILIO_TOKEN}
    environment["CONNECTOR_RESUME_GRACE"] = "0"
    async with ConnectorProcess(environment | {"CONNECTOR_INSTANCE": "victim"}) as victim:
        client = api.LiveKitAPI(victim.url, stage.livekit.api_key, stage.livekit.api_secret, failover=False)
        try:
            url = await connect_call(client, room, INBOUND)
        finally:
            await client.aclose()
        guest = await stage.guest(room)
        call = dial(twilio, url)
        await guest.event("track_subscribed")
        await call.stream_started.wait()
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.time()
        await call.stream.ended.wait()
        # LiveKit has not noticed by then; and time goes by before a successor comes.
        assert "caller" in await stage.participants(room)
        await asyncio.sleep(2 * RENEW_EVERY)
        successor = await stage.connector(store=shared, instance="victim", resume_grace=0)
        # By itself LiveKit takes twenty seconds.
        await stage.gone(room, "caller", 12.0)
        record = await record_of(successor)
        assert record.end_reason is EndReason.INTERRUPTED
        assert record.started_at < record.ended_at < killed
        assert record.timelog[-1] == ("call-hangup", record.ended_at)
