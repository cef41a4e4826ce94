"""A media socket ends in some way, and each simulated carrier does what its documents say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest

from carrier_simulator import Document, Fault, InboundCall, PlivoSimulator, TelnyxSimulator, TwilioSimulator
from carrier_simulator.telnyx.dialect import call_control_id
from tests.unit.simulator.application import Application, Socket
from tests.unit.simulator.test_plivo_call import signed_by_plivo
from tests.unit.simulator.test_telnyx_call import signed_by_telnyx

Break = Callable[[InboundCall, Socket], Awaitable[Any]]


async def _server_closes(_: InboundCall, server: Socket) -> None:
    await server.ws.close()


async def _server_restarts(_: InboundCall, server: Socket) -> None:
    await server.ws.close(code=1012)


async def _server_dies(_: InboundCall, server: Socket) -> None:
    """Its kernel ends the connection: no close frame."""
    assert server.request.transport
    server.request.transport.close()


async def _server_resets(_: InboundCall, server: Socket) -> None:
    assert server.request.transport
    server.request.transport.abort()


async def _carrier_resets(call: InboundCall, _: Socket) -> None:
    call.stream.abort()


async def _carrier_closes(call: InboundCall, _: Socket) -> None:
    await call.stream.close(1011)


async def _silence(call: InboundCall, _: Socket) -> None:
    call.stream.go_silent(notices_after=0.05)


LOSSES: list[Break] = [
    _server_restarts,
    _server_dies,
    _server_resets,
    _carrier_resets,
    _carrier_closes,
    _silence,
]


@pytest.fixture
async def plivo() -> AsyncIterator[PlivoSimulator]:
    async with PlivoSimulator() as simulator:
        yield simulator


@pytest.fixture
async def at_plivo(plivo: PlivoSimulator) -> AsyncIterator[Application]:
    async with Application(signed_by_plivo(plivo.auth_token)) as application:
        yield application


@pytest.fixture
async def telnyx() -> AsyncIterator[TelnyxSimulator]:
    async with TelnyxSimulator() as simulator:
        yield simulator


@pytest.fixture
async def at_telnyx(telnyx: TelnyxSimulator) -> AsyncIterator[Application]:
    async with Application(signed_by_telnyx(telnyx.public_key)) as application:
        yield application


# Twilio: the next verb, however the socket ended -----------------------------------------------------------


@pytest.mark.parametrize("lose", [_server_closes, *LOSSES])
async def test_twilio_follows_a_redirect_after_the_stream(
    carrier: TwilioSimulator, application: Application, lose: Break
) -> None:
    back = application.page("/back", "<Say>Back</Say>")
    call = carrier.call_in(application.stream_page(f"<Redirect>{back}</Redirect>"))
    await lose(call, await application.socket())
    hit = await application.hit(lambda hit: hit.path == "/back")
    assert (hit.method, hit.valid, hit.form["CallSid"], hit.form["CallStatus"]) == (
        "POST",
        True,
        call.sid,
        "in-progress",
    )
    await call.ended.wait()
    assert call.spoken == ["Back"]


async def test_twilio_follows_a_redirect_after_a_refused_handshake(
    carrier: TwilioSimulator, application: Application
) -> None:
    application.refuse_stream = 503
    back = application.page("/back", "<Say>Back</Say>")
    call = carrier.call_in(application.stream_page(f'<Redirect method="GET">{back}?a=b</Redirect>'))
    hit = await application.hit(lambda hit: hit.path == "/back")
    assert (hit.method, hit.valid) == ("GET", True)
    await call.ended.wait()
    assert ([error.code for error in call.errors], call.spoken) == ([Fault.STREAM_HANDSHAKE], ["Back"])


@pytest.mark.parametrize("lose", [_server_closes, *LOSSES])
async def test_twilio_ends_a_call_with_nothing_left_to_do(
    carrier: TwilioSimulator, application: Application, lose: Break
) -> None:
    call = carrier.call_in(application.stream_page())
    await lose(call, await application.socket())
    await call.ended.wait()
    assert call.status == "completed"


@pytest.mark.parametrize(("url", "path"), [("back", "/calls/back"), ("/back", "/back"), ("", "/calls/voice")])
async def test_twilio_completes_a_relative_redirect_with_the_documents_url(
    carrier: TwilioSimulator, application: Application, url: str, path: str
) -> None:
    application.page("/back", "<Say>Back</Say>")
    application.page("/calls/back", "<Say>Back</Say>")
    call = carrier.call_in(application.page("/calls/voice", f"<Redirect>{url}</Redirect>"))
    await application.hit()
    assert (await application.hit()).path == path
    await call.hangup()


async def test_twilio_refuses_a_relative_redirect_of_a_document_without_a_url(carrier: TwilioSimulator) -> None:
    call = carrier.dial("+15550001111", "+15552223333", Document(inline="<Response><Redirect>/a</Redirect></Response>"))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.URL]


async def test_a_call_whose_stream_is_silent_is_moved_by_the_rest_api(
    carrier: TwilioSimulator, application: Application
) -> None:
    call = carrier.call_in(application.stream_page())
    server = await application.socket()
    call.stream.go_silent()
    back = application.page("/back", "<Say>Back</Say>")
    auth = aiohttp.encode_basic_auth(carrier.account_sid, carrier.auth_token)
    url = f"{carrier.base_url}/2010-04-01/Accounts/{carrier.account_sid}/Calls/{call.sid}.json"
    async with (
        aiohttp.ClientSession(headers={"Authorization": auth}) as session,
        session.post(url, data={"Url": back}) as response,
    ):
        assert response.status == 200
    await call.ended.wait()
    assert (call.spoken, server.done.is_set()) == (["Back"], False)
    assert not [message for message in server.seen if message["event"] == "stop"]


# Silence ---------------------------------------------------------------------------------------------------


async def test_a_silent_stream_stays_open_and_carries_nothing(
    carrier: TwilioSimulator, application: Application
) -> None:
    call = carrier.call_in(application.stream_page())
    server = await application.socket()
    await server.expect("media")
    call.stream.go_silent()
    while not server.inbox.empty():
        server.inbox.get_nowait()
    before = len(server.seen)
    await server.media(b"\x20" * 1600)
    with pytest.raises(TimeoutError):
        await call.stream.first_sound.wait(0.15)
    assert len(server.seen) <= before + 1  # One frame may have been on its way.
    assert not server.ws.closed
    assert not call.stream.ended.has_come()


# Plivo: twice again by itself, then the next element -------------------------------------------------------

KEPT = 'bidirectional="true" keepCallAlive="true" contentType="audio/x-mulaw;rate=8000"'


def _plivo_answer(application: Application, after: str = "", more: str = "") -> str:
    url = f"{application.stream_url}?ref=r"
    return application.page("/hook", f"<Stream {KEPT}{more}>{url}</Stream>{after}")


@pytest.mark.parametrize("lose", LOSSES)
async def test_plivo_opens_a_lost_socket_again(plivo: PlivoSimulator, at_plivo: Application, lose: Break) -> None:
    call = plivo.call_in(_plivo_answer(at_plivo, "<Speak>After</Speak>"))
    first = await at_plivo.socket()
    await lose(call, first)
    second = await at_plivo.socket()
    assert second.request.path_qs == first.request.path_qs
    assert second.sid == first.sid
    call.say(np.full(800, 8000, np.int16))
    await second.expect("media")
    assert (call.spoken, len(call.streams)) == ([], 2)
    await second.ws.close()
    await call.ended.wait()
    assert call.spoken == ["After"]


async def test_plivo_goes_on_after_two_attempts(plivo: PlivoSimulator, at_plivo: Application) -> None:
    back = at_plivo.page("/back", "<Speak>Back</Speak>")
    call = plivo.call_in(_plivo_answer(at_plivo, f"<Redirect>{back}</Redirect>"))
    for _ in range(3):
        await _server_restarts(call, await at_plivo.socket())
    hit = await at_plivo.hit(lambda hit: hit.path == "/back")
    assert (hit.method, hit.valid, hit.form["CallUUID"]) == ("POST", True, call.sid)
    await call.ended.wait()
    assert (call.spoken, len(call.streams)) == (["Back"], 3)


async def test_plivo_tries_a_refused_handshake_twice_again(plivo: PlivoSimulator, at_plivo: Application) -> None:
    at_plivo.refuse_stream = 410
    call = plivo.call_in(_plivo_answer(at_plivo, "<Speak>After</Speak>"))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE] * 3
    assert call.spoken == ["After"]


async def test_plivo_does_not_open_a_socket_again_that_was_closed_properly(
    plivo: PlivoSimulator, at_plivo: Application
) -> None:
    call = plivo.call_in(_plivo_answer(at_plivo))
    await _server_closes(call, await at_plivo.socket())
    await call.ended.wait()
    assert len(call.streams) == 1


async def test_plivo_tells_of_dropped_streams(plivo: PlivoSimulator, at_plivo: Application) -> None:
    report = at_plivo.page("/report", "")
    call = plivo.call_in(_plivo_answer(at_plivo, "", f' statusCallbackUrl="{report}"'))

    async def told() -> str:
        return (await at_plivo.hit(lambda hit: hit.path == "/report")).form["Event"]

    await _server_resets(call, await at_plivo.socket())
    events = [await told(), await told()]
    await _server_closes(call, await at_plivo.socket())
    events += [await told(), await told()]
    assert events == ["StartStream", "DroppedStream", "StartStream", "StopStream"]


async def test_a_person_who_hangs_up_during_plivos_pause_is_gone(plivo: PlivoSimulator, at_plivo: Application) -> None:
    call = plivo.call_in(_plivo_answer(at_plivo, "<Speak>After</Speak>"))
    server = await at_plivo.socket()
    await _server_resets(call, server)
    await call.stream.ended.wait()
    await call.hangup()
    assert (call.spoken, len(call.streams)) == ([], 1)


@pytest.mark.parametrize("url", ["", "/back", "ftp://a/b"])
async def test_plivo_and_telnyx_refuse_a_redirect_without_a_complete_url(
    plivo: PlivoSimulator, at_plivo: Application, telnyx: TelnyxSimulator, at_telnyx: Application, url: str
) -> None:
    for carrier, application in ((plivo, at_plivo), (telnyx, at_telnyx)):
        call = carrier.call_in(application.page("/hook", f"<Redirect>{url}</Redirect>"))
        await call.ended.wait()
        assert [error.code for error in call.errors] == [Fault.SCHEMA]


# Telnyx: beside the document, or in it ---------------------------------------------------------------------

RTP = 'bidirectionalMode="rtp"'


@pytest.mark.parametrize("lose", LOSSES)
async def test_telnyx_stays_in_its_pause_and_then_follows_the_redirect(
    telnyx: TelnyxSimulator, at_telnyx: Application, lose: Break
) -> None:
    back = at_telnyx.page("/back", '<Pause length="60"/>')
    stream = f'<Start><Stream url="{at_telnyx.stream_url}?ref=r" {RTP}/></Start>'
    call = telnyx.call_in(at_telnyx.page("/hook", f'{stream}<Pause length="1"/><Redirect>{back}</Redirect>'))
    server = await at_telnyx.socket()
    await lose(call, server)
    await call.stream.ended.wait()
    assert at_telnyx.hits.qsize() == 2  # The webhook and the handshake.
    hit = await at_telnyx.hit(lambda hit: hit.path == "/back")
    assert (hit.method, hit.valid, hit.form["CallSid"]) == ("POST", True, call.sid)
    assert not call.is_over
    assert call.answered.at
    assert asyncio.get_running_loop().time() - call.answered.at >= 1.0


@pytest.mark.parametrize("lose", [_server_closes, *LOSSES])
async def test_telnyx_completes_a_connect_when_the_socket_ends(
    telnyx: TelnyxSimulator, at_telnyx: Application, lose: Break
) -> None:
    back = at_telnyx.page("/back", "<Say>Back</Say>")
    stream = f'<Connect><Stream url="{at_telnyx.stream_url}?ref=r" {RTP}/></Connect>'
    call = telnyx.call_in(at_telnyx.page("/hook", f"{stream}<Redirect>{back}</Redirect>"))
    await lose(call, await at_telnyx.socket())
    await call.ended.wait()
    assert (call.spoken, len(call.streams)) == (["Back"], 1)


class Command:
    """Telnyx's commands of one call."""

    def __init__(self, telnyx: TelnyxSimulator, call: InboundCall) -> None:
        self._telnyx = telnyx
        self._url = f"{telnyx.base_url}/v2/calls/{call_control_id(call.sid)}/actions/streaming_start"

    async def __call__(self, **fields: object) -> int:
        headers = {"Authorization": f"Bearer {self._telnyx.api_key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(self._url, json=fields) as response,
        ):
            return response.status


@pytest.fixture
async def parked(telnyx: TelnyxSimulator, at_telnyx: Application) -> InboundCall:
    call = telnyx.call_in(at_telnyx.page("/hook", '<Pause length="60"/>'))
    await call.answered.wait()
    return call


async def test_telnyx_starts_a_stream_beside_the_document(
    telnyx: TelnyxSimulator, at_telnyx: Application, parked: InboundCall
) -> None:
    start = Command(telnyx, parked)
    fields = {"stream_url": f"{at_telnyx.stream_url}?ref=r", "stream_track": "both_tracks"}
    fields |= {"stream_bidirectional_mode": "rtp", "stream_bidirectional_codec": "PCMA", "stream_codec": "PCMA"}
    assert await start(**fields, command_id="one") == 200
    server = await at_telnyx.socket()
    assert server.seen[1]["start"]["media_format"]["encoding"] == "PCMA"
    assert await start(**fields) == 422  # Streamed already.
    await _server_resets(parked, server)
    await parked.stream.ended.wait()
    assert await start(**fields, command_id="one") == 200  # Nothing happens: the same command.
    assert await start(**fields, command_id="two") == 200
    second = await at_telnyx.socket()
    assert len(parked.streams) == 2
    await parked.hangup()
    await second.done.wait()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream_url": "https://a.example/"},
        {"stream_url": "wss://a.example/", "url": "wss://a.example/"},
        {"stream_url": "wss://a.example/", "stream_bidirectional_mode": "wav"},
        {"stream_url": "wss://a.example/", "stream_track": "all"},
    ],
)
async def test_telnyx_refuses_a_wrong_streaming_start(
    telnyx: TelnyxSimulator, parked: InboundCall, fields: dict[str, str]
) -> None:
    assert await Command(telnyx, parked)(**fields) == 422
    assert not parked.streams


async def test_telnyx_refuses_to_stream_a_call_that_is_over(telnyx: TelnyxSimulator, parked: InboundCall) -> None:
    await parked.hangup()
    assert await Command(telnyx, parked)(stream_url="wss://a.example/") == 422
