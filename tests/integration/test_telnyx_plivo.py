"""Calls at Telnyx and Plivo, from Connect…Call to the hang-up over their REST APIs, in every format they stream."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from livekit import api, rtc
from numpy.typing import NDArray
from structlog.testing import capture_logs

from carrier_simulator import CallStatus, Document
from carrier_simulator.plivo.simulator import PlivoSimulator
from carrier_simulator.simulator import CarrierSimulator
from carrier_simulator.telnyx.dialect import TelnyxDialect
from carrier_simulator.telnyx.simulator import TelnyxSimulator
from connector.app import Connector
from connector.call.registry.control import TransferWish
from connector.call.session.answer import CANNOT_HEAR
from connector.carriers.resume_url import resume_url
from connector.model.call import Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.tokens import TRANSFER_PURPOSE, TokenSigner
from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import PATIENCE, Guest, Stage, ended, only_session, strength, tone, until
from tests.integration.rpc import TRANSPORTS, grpc_connector, rpc_over
from tests.integration.wire import Wire, wire_to

CALLEE, OURS, THIRD = "+15551234567", "+15557654321", "+15550009999"


@dataclass
class Line:
    stage: Stage
    carrier: CarrierSimulator
    connector: Connector
    wire: Wire
    guest: Guest
    room: str
    provider: Provider

    async def connect(self, direction: str = "CALL_DIRECTION_OUTBOUND") -> str:
        name = self.provider.value.capitalize()
        reply = await self.wire.send_json(
            {"direction": direction, "room_name": self.room, "participant_identity": "caller"},
            f"/twirp/connector.v1.Connector/Connect{name}Call",
        )
        assert reply.status == 200, reply.body
        return str(reply.document["connect_url"])

    async def call(self) -> Any:
        """A call that is answered, and talks."""
        call = self.carrier.dial(CALLEE, OURS, Document((await self.connect()).replace("ws", "http", 1)))
        await self.guest.event("track_subscribed")
        await until(lambda: bool(call.streams) and only_session(self.connector).state.value == "active")
        return call

    async def end(self) -> None:
        (call,) = self.connector.calls.live()
        reply = await self.wire.send_json({"call_id": call.call_id}, "/twirp/connector.v1.Connector/EndCall")
        assert reply.document["call"]["state"] == "STATE_ENDED"


async def line_at(stage: Stage, room: str, provider: Provider, **settings: Any) -> Line:
    """A connector with every credential of a carrier at hand, and somebody in the room."""
    carrier: CarrierSimulator
    if provider is Provider.TELNYX:
        carrier = telnyx = await stage._stack.enter_async_context(TelnyxSimulator())
        settings |= {
            "telnyx_public_key": telnyx.public_key,
            "telnyx_api_key": telnyx.api_key,
            "telnyx_api_url": telnyx.base_url,
        }
    else:
        carrier = plivo = await stage._stack.enter_async_context(PlivoSimulator())
        settings |= {
            "plivo_auth_id": plivo.auth_id,
            "plivo_auth_token": plivo.auth_token,
            "plivo_api_url": plivo.base_url,
        }
    connector = await stage.connector(**settings)
    guest = await stage.guest(room)
    await guest.publish()
    return Line(stage, carrier, connector, await wire_to(stage, connector), guest, room, provider)


BOTH = pytest.mark.parametrize("provider", [Provider.TELNYX, Provider.PLIVO])


def at(rate: int, frequency: float, pcm: NDArray[np.int16]) -> float:
    """The strength of a frequency in sound of this rate (`strength` takes it for 8 kHz)."""
    return strength(pcm, frequency * 8000 / rate)


@pytest.mark.parametrize(
    ("provider", "settings", "rate"),
    [
        (Provider.TELNYX, {}, 8000),
        (Provider.TELNYX, {"telnyx_codec": "PCMA"}, 8000),
        (Provider.TELNYX, {"telnyx_codec": "L16"}, 16000),
        (Provider.PLIVO, {}, 8000),
        (Provider.PLIVO, {"plivo_codec": "audio/x-l16;rate=8000"}, 8000),
        (Provider.PLIVO, {"plivo_codec": "audio/x-l16;rate=16000"}, 16000),
    ],
)
async def test_both_talk_in_every_format(
    stage: Stage, room: str, provider: Provider, settings: dict[str, Any], rate: int
) -> None:
    line = await line_at(stage, room, provider, **settings)
    call = await line.call()
    call.say(tone(600, 8.0))
    await line.guest.until(lambda: strength(line.guest.sound_of("caller")[-4000:], 600) > 4000)
    line.guest.start_saying(tone(900, 8.0))
    await until(lambda: at(rate, 900, call.heard[-rate // 4 :]) > 4000)
    assert call.errors == []
    await line.end()
    await asyncio.wait_for(call.ended.wait(), PATIENCE)


async def test_frames_of_telnyx_that_overtake_each_other_are_heard_in_order(stage: Stage, room: str) -> None:
    line = await line_at(stage, room, Provider.TELNYX)
    call = await line.call()
    # 12.2 periods a frame: what is out of order does not add up.
    call.say(tone(610, 20.0))
    await line.guest.until(lambda: strength(line.guest.sound_of("caller")[-4000:], 610) > 6000)
    call.stream.disorder = (2, 0, 1)
    begins = len(line.guest.sound_of("caller"))
    await line.guest.until(lambda: len(line.guest.sound_of("caller")) > begins + 3 * 8000)
    heard = line.guest.sound_of("caller")[begins + 8000 : begins + 3 * 8000]
    assert min(strength(heard[at : at + 4000], 610) for at in range(0, 12000, 4000)) > 6000
    dropped = line.connector.metrics.dropped.labels("from_carrier", "out_of_order")._value.get()
    assert dropped <= 2


@BOTH
async def test_the_caller_is_a_connector_of_its_carrier_and_keys_pass(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    call = await line.call()
    caller = (await stage.participants(room))["caller"]
    assert (caller.kind, list(caller.kind_details)) == (7, [])
    assert caller.attributes["connector.provider"] == provider.value
    assert (caller.attributes["phone.from"], caller.attributes["phone.to"]) == (OURS, CALLEE)
    assert [name for name in caller.attributes if name.startswith(f"{provider.value}.")]
    await call.press("5")
    (dtmf,) = await line.guest.event("sip_dtmf_received")
    assert isinstance(dtmf, rtc.SipDTMF)
    assert dtmf.digit == "5"
    await call.hangup()
    record = await ended(line.connector)
    assert record.end_reason in (EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED)
    assert (record.carrier_call_id, record.from_number, record.to_number) == (call.sid, OURS, CALLEE)
    assert call.errors == []


@BOTH
async def test_a_phone_whose_room_is_gone_is_hung_up(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    call = await line.call()
    await line.guest.leave()
    only_session(line.connector).end(EndReason.ROOM_DELETED)
    record = await ended(line.connector)
    assert record.end_reason is EndReason.ROOM_DELETED
    await asyncio.wait_for(call.ended.wait(), PATIENCE)
    assert call.status is CallStatus.COMPLETED


@BOTH
async def test_a_phone_is_transferred(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    call = await line.call()
    await line.connector.control.transfer(only_session(line.connector).call_id, TransferWish(THIRD))
    await asyncio.wait_for(call.transferred.wait(), PATIENCE)
    assert [str(target.address) for target in call.dialled] == [THIRD]
    record = await ended(line.connector)
    assert record.end_reason is EndReason.TRANSFERRED
    assert not call.ended.has_come()
    assert call.errors == []


@BOTH
async def test_a_document_without_a_signature_is_refused(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    url = (await line.connect()).replace("ws", "http", 1)
    session = await stage.http()
    for method in ("GET", "POST"):
        async with session.request(method, url, data={"From": OURS} if method == "POST" else None) as response:
            assert (response.status, "<Hangup" in await response.text()) == (403, True)


@BOTH
async def test_a_connect_url_is_of_one_carrier_alone(stage: Stage, room: str, provider: Provider) -> None:
    connector = await stage.connector(twilio_auth_token="")
    line = Line(stage, None, connector, await wire_to(stage, connector), None, room, provider)  # type: ignore[arg-type]
    url = (await line.connect("CALL_DIRECTION_INBOUND")).replace("ws", "http", 1)
    token = url.partition("?ref=")[2]
    session = await stage.http()
    others = [other for other in Provider if other is not provider]
    for path, status in [(provider.value, 200)] + [(other.value, 404) for other in others]:
        async with session.get(f"{connector.settings.public_origin}/{path}/{token}") as response:
            assert response.status == status, path


async def test_a_document_that_dials_is_for_its_own_tokens_alone_and_for_a_while(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    addresses = TokenSigner(stage.livekit.api_secret, TRANSFER_PURPOSE)
    reply = await (await wire_to(stage, connector)).send_json(
        {"room_name": room}, "/twirp/connector.v1.Connector/ConnectPlivoCall"
    )
    connect_url = str(reply.document["connect_url"])
    call_id = only_session(connector).call_id
    session = await stage.http()
    for token, refused in (
        (addresses.mint(f"{call_id}:2", time.time() + 60), 410),
        (addresses.mint(f"{call_id}:2", time.time() - 1), 410),
        (connect_url.partition("?ref=")[2], 404),
        (TokenSigner("another-secret" * 3, TRANSFER_PURPOSE).mint(f"{call_id}:2", time.time() + 60), 404),
    ):
        url = f"{connector.settings.public_origin}/plivo/{token}/transfer/document"
        async with session.post(url) as response:
            text = await response.text()
        assert (response.status, "<Hangup" in text, "<Dial" in text) == (refused, True, False)


DOCUMENTS = {
    Provider.TELNYX: '  <Start>\n    <Stream url="{url}" track="both_tracks" bidirectionalMode="rtp" '
    'bidirectionalCodec="PCMU" codec="PCMU" />\n  </Start>\n  <Pause length="1" />\n'
    '  <Redirect method="POST">{back}</Redirect>\n',
    Provider.PLIVO: '  <Stream bidirectional="true" keepCallAlive="true" contentType="audio/x-mulaw;rate=8000">'
    '{url}</Stream>\n  <Redirect method="POST">{back}</Redirect>\n',
}


@BOTH
@pytest.mark.parametrize(("settings", "tag"), [({}, ""), ({"greeting": "Hello!"}, "greeting")])
async def test_the_document_is_the_carriers_and_greets_only_where_a_greeting_was_set(
    stage: Stage, room: str, provider: Provider, settings: dict[str, Any], tag: str
) -> None:
    connector = await stage.connector(**settings)
    reply = await (await wire_to(stage, connector)).send_json(
        {"room_name": room}, f"/twirp/connector.v1.Connector/Connect{provider.value.capitalize()}Call"
    )
    url = str(reply.document["connect_url"])
    word = "Speak" if provider is Provider.PLIVO else "Say"
    greeting = f"  <{word}>Hello!</{word}>\n" if tag else ""
    session = await stage.http()
    for ask in (session.get, session.post):
        async with ask(url.replace("ws", "http", 1)) as response:
            back = response.headers["Connector-Resume-Url"]
            assert back == reply.headers["Connector-Resume-Url"] == resume_url(url)
            assert await response.text() == (
                '<?xml version="1.0" encoding="UTF-8"?>\n'
                f"<Response>\n{greeting}{DOCUMENTS[provider].format(url=url, back=back)}</Response>\n"
            )


REQUESTS = {
    Provider.TELNYX: (pb.ConnectTelnyxCallRequest, pb.ConnectTelnyxCallResponse),
    Provider.PLIVO: (pb.ConnectPlivoCallRequest, pb.ConnectPlivoCallResponse),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@BOTH
async def test_the_request_is_twilios_on_every_transport(
    stage: Stage, room: str, provider: Provider, transport: str
) -> None:
    connector = await grpc_connector(stage, regions={"in002": "https://in.example.com"}, countries={"IN": "in002"})
    ask, answer = REQUESTS[provider]
    request = ask(
        direction=pb.CALL_DIRECTION_INBOUND,
        room_name=room,
        agents=[pb.RoomAgentDispatch(agent_name="helper", metadata="m")],
        participant_identity="caller",
        participant_name="A caller",
        participant_metadata="free text",
        participant_attributes={"tier": "gold"},
        destination_country="in",
    )
    async with rpc_over(transport, stage, connector) as rpc:
        response = await rpc._call(f"Connect{provider.value.capitalize()}Call", request, answer)
    url: str = response.connect_url  # type: ignore[attr-defined]
    assert url.startswith(f"wss://in.example.com/{provider.value}?ref=")
    asked = only_session(connector).request
    assert (asked.provider, asked.direction, asked.room) == (provider, Direction.INBOUND, room)
    assert (asked.participant.identity, asked.participant.name) == ("caller", "A caller")
    assert (asked.participant.metadata, asked.participant.attributes) == ("free text", {"tier": "gold"})
    assert [(agent.agent_name, agent.metadata) for agent in asked.agents] == [("helper", "m")]
    assert (asked.destination_country, asked.region) == ("IN", "in002")


@BOTH
async def test_the_answer_document_streams_to_the_region_of_its_call(
    stage: Stage, room: str, provider: Provider
) -> None:
    connector = await stage.connector(regions={"in002": "https://in.example.com"}, countries={"IN": "in002"})
    wire = await wire_to(stage, connector)
    reply = await wire.send_json(
        {"room_name": room, "destination_country": "IN"},
        f"/twirp/connector.v1.Connector/Connect{provider.value.capitalize()}Call",
    )
    url = str(reply.document["connect_url"])
    here = connector.settings.public_origin + url.removeprefix("wss://in.example.com")
    async with (await stage.http()).post(here) as response:
        assert f"wss://in.example.com/{provider.value}?ref=" in await response.text()


@BOTH
async def test_the_direction_is_checked(stage: Stage, room: str, provider: Provider) -> None:
    wire = await wire_to(stage)
    reply = await wire.send_json(
        {"direction": 7, "room_name": room}, f"/twirp/connector.v1.Connector/Connect{provider.value.capitalize()}Call"
    )
    assert (reply.status, reply.field) == (400, "direction")
    await wire.assert_nothing_created(room)


@pytest.mark.parametrize(
    ("provider", "settings"),
    [(Provider.TELNYX, {"telnyx_codec": "L16"}), (Provider.PLIVO, {"plivo_codec": "audio/x-l16;rate=16000"})],
)
async def test_a_phone_moves_to_another_room_at_the_rate_of_its_stream(
    stage: Stage, room: str, provider: Provider, settings: dict[str, Any]
) -> None:
    line = await line_at(stage, room, provider, **settings)
    there = await stage.guest(f"{room}-other", "guest-there")
    await there.publish()
    call = await line.call()
    call.say(tone(600, 20.0))
    there.start_saying(tone(1300, 20.0))
    await line.guest.until(lambda: strength(line.guest.sound_of("caller")[-4000:], 600) > 4000)
    await line.connector.control.switch_room(only_session(line.connector).call_id, f"{room}-other")
    await there.until(lambda: strength(there.sound_of("caller")[-4000:], 600) > 4000)
    await until(lambda: at(16000, 1300, call.heard[-4000:]) > 4000)
    assert call.errors == []


@BOTH
async def test_a_phone_whose_stream_reaches_another_process_is_carried_there(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    shared = line.connector.settings
    carrier = {name: value for name, value in shared.model_dump().items() if name.startswith(provider.value)}
    taker = await stage.connector(store=shared.store, instance="taker", **carrier)
    url = (await line.connect()).replace(f":{line.connector.port}/", f":{taker.port}/")
    call = line.carrier.dial(CALLEE, OURS, Document(url.replace("ws", "http", 1)))
    await line.guest.event("track_subscribed")
    await until(lambda: [each.state.value for each in taker.calls.live()] == ["active"])
    await until(lambda: not line.connector.calls.live())
    line.guest.start_saying(tone(900, 10.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)
    # Its hang-up is the taker's to do now, and it knows the carrier's names for the call.
    await taker.control.end(only_session(taker).call_id)
    await asyncio.wait_for(call.ended.wait(), PATIENCE)
    assert (await ended(taker)).end_reason is EndReason.ENDED_BY_API
    assert call.errors == []


async def test_a_call_in_a_codec_that_nobody_decodes_is_told_so_and_hung_up(stage: Stage, room: str) -> None:
    line = await line_at(stage, room, Provider.TELNYX)
    assert isinstance(line.carrier.dialect, TelnyxDialect)
    line.carrier.dialect.call_codec = ("G722", 8000)
    with capture_logs() as lines:
        call = line.carrier.dial(CALLEE, OURS, Document((await line.connect()).replace("ws", "http", 1)))
        await asyncio.wait_for(call.ended.wait(), PATIENCE)
        record = await ended(line.connector)
    assert call.spoken[-1] == CANNOT_HEAR
    assert record.end_reason is EndReason.PROTOCOL_ERROR
    (warning,) = [entry for entry in lines if entry["event"] == "the carrier streams audio that cannot be decoded"]
    assert (warning["format"], warning["log_level"]) == ("G722/8000", "warning")


@BOTH
async def test_a_hang_up_that_the_carrier_fails_once_is_done_at_the_second_try(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    call = await line.call()
    line.carrier.api_failures = 1
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    record = await ended(line.connector)
    assert record.end_reason is EndReason.ROOM_DELETED
    await asyncio.wait_for(call.ended.wait(), PATIENCE)
    assert call.errors == []
    await until(lambda: line.connector.metrics.hang_ups.labels(provider.value, "done")._value.get() == 1)
    assert line.connector.metrics.hang_ups.labels(provider.value, "failed")._value.get() == 1
