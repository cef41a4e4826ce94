"""The media stream against a server that a test drives by hand; each in real time, each short."""

from __future__ import annotations

import socket as sockets
import ssl
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import trustme

from carrier_simulator import CallOptions, Document, Fault, OutboundCall, TwilioSimulator
from carrier_simulator.g711 import ulaw_decode, ulaw_encode
from tests.unit.simulator.application import Application, Socket, signed_by_twilio

TO, FROM = "+15550001111", "+15552223333"
BEEP = (8000 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)).astype(np.int16)


@pytest.fixture
async def call(carrier: TwilioSimulator, application: Application) -> OutboundCall:
    return carrier.dial(TO, FROM, Document(application.stream_page()))


@pytest.fixture
async def server(call: OutboundCall, application: Application) -> Socket:
    return await application.socket()


async def medias(server: Socket, count: int) -> list[dict[str, str]]:
    for _ in range(count):
        await server.expect("media")
    return [message["media"] for message in server.seen if message["event"] == "media"]


async def test_the_stream_opens_as_twilio_opens_it(
    call: OutboundCall, server: Socket, application: Application, carrier: TwilioSimulator
) -> None:
    handshake = await application.hit(lambda hit: hit.path.startswith("/stream"))
    assert handshake.valid
    assert handshake.headers["User-Agent"] == "Twilio.TmeWs/1.0"
    assert server.seen[0] == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert server.seen[1]["start"] == {
        "accountSid": carrier.account_sid,
        "streamSid": call.stream.sid,
        "callSid": call.sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {},
    }


async def test_parameters_arrive_with_the_start(carrier: TwilioSimulator, application: Application) -> None:
    url = application.stream_page(inside='<Parameter name="color" value="blue"/>')
    carrier.dial(TO, FROM, Document(url))
    server = await application.socket()
    assert server.seen[1]["start"]["customParameters"] == {"color": "blue"}


async def test_frames_leave_every_20_ms_without_drift(call: OutboundCall, server: Socket) -> None:
    began = time.monotonic()
    sent = (await medias(server, 50))[:50]
    assert [media["timestamp"] for media in sent] == [str(20 * n) for n in range(50)]
    assert [media["chunk"] for media in sent] == [str(n + 1) for n in range(50)]
    assert {len(media["payload"]) for media in sent} == {216}
    assert 0.9 < time.monotonic() - began < 1.3


async def test_what_is_said_arrives_and_is_kept(call: OutboundCall, server: Socket) -> None:
    begins = call.say(BEEP)
    assert call.saying == pytest.approx(0.1)
    await medias(server, begins // 160 + 8)
    coded = ulaw_decode(ulaw_encode(BEEP))
    np.testing.assert_array_equal(call.said[begins : begins + 800], coded)
    assert not call.said[:begins].any()
    assert call.saying == 0


async def test_what_the_server_sends_is_heard_when_it_arrives(call: OutboundCall, server: Socket) -> None:
    await medias(server, 5)
    before = len(call.heard)
    await server.media(ulaw_encode(BEEP))
    arrived = await call.first_sound.wait()
    await medias(server, 8)
    started = call.stream_started.at
    assert started is not None
    heard = call.heard
    first = int(np.flatnonzero(heard)[0])
    assert before <= first <= (arrived - started) * 8000 + 8
    np.testing.assert_array_equal(heard[first : first + 799], ulaw_decode(ulaw_encode(BEEP))[1:])
    assert (call.stream.received_frames, call.stream.received_bytes) == (1, 800)


async def test_marks_come_back_when_playback_reaches_them(call: OutboundCall, server: Socket) -> None:
    sent = time.monotonic()
    await server.media(b"\x20" * 1600)
    await server.send(event="mark", mark={"name": "played"})
    await call.first_sound.wait()
    assert 0.05 < call.stream.buffered <= 0.2
    mark = await server.expect("mark")
    assert mark["mark"] == {"name": "played"}
    assert 0.19 < time.monotonic() - sent < 0.5


async def test_clear_drops_the_audio_and_returns_the_marks_at_once(call: OutboundCall, server: Socket) -> None:
    await server.media(b"\x20" * 16000)
    await server.send(event="mark", mark={"name": "one"})
    await server.send(event="mark", mark={"name": "two"})
    sent = time.monotonic()
    await server.send(event="clear")
    assert [(await server.expect("mark"))["mark"]["name"] for _ in range(2)] == ["one", "two"]
    assert time.monotonic() - sent < 1
    assert (call.stream.buffered, call.stream.received_clears, call.stream.received_marks) == (0, 1, 2)


async def test_keys_are_pressed_in_order(call: OutboundCall, server: Socket) -> None:
    await call.press("12#")
    digits = [await server.expect("dtmf") for _ in range(3)]
    assert [d["dtmf"] for d in digits] == [{"track": "inbound_track", "digit": d} for d in "12#"]
    numbers = [int(message["sequenceNumber"]) for message in server.seen[1:]]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_hanging_up_says_stop_and_closes(call: OutboundCall, server: Socket) -> None:
    await call.hangup()
    await server.done.wait()
    assert server.seen[-1]["stop"] == {"accountSid": call.account_sid, "callSid": call.sid}
    assert (server.ws.close_code, call.status, call.errors) == (1000, "completed", [])


async def test_when_the_server_closes_the_document_goes_on(carrier: TwilioSimulator, application: Application) -> None:
    call = carrier.dial(TO, FROM, Document(application.stream_page("<Say>After</Say>")))
    server = await application.socket()
    await server.ws.close()
    await call.ended.wait()
    assert (call.spoken, call.errors, call.stream.close_code) == (["After"], [], 1000)
    assert not [message for message in server.seen if message["event"] == "stop"]


async def test_an_action_is_requested_when_the_stream_ends(carrier: TwilioSimulator, application: Application) -> None:
    action = application.page("/done", "<Say>Done</Say>")
    call = carrier.dial(TO, FROM, Document(application.stream_page("<Say>No</Say>", action=action)))
    server = await application.socket()
    await server.ws.close()
    await call.ended.wait()
    hit = await application.hit(lambda hit: hit.path == "/done")
    assert (hit.valid, hit.form["StreamSid"], call.spoken) == (True, server.sid, ["Done"])


@pytest.mark.parametrize("message", ["{", '{"event":"media"}', "[" * 9999])
async def test_a_wrong_message_is_31951_and_ends_the_stream(call: OutboundCall, server: Socket, message: str) -> None:
    await server.ws.send_str(message)
    await call.ended.wait()
    await server.done.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_MESSAGE]
    assert server.ws.close_code == 1008


async def test_a_binary_message_is_31950_and_ends_the_stream(call: OutboundCall, server: Socket) -> None:
    await server.ws.send_bytes(b"\xff")
    await call.ended.wait()
    await server.done.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_BINARY]
    assert server.ws.close_code == 1003


async def test_more_than_ten_minutes_of_audio_are_31931(call: OutboundCall, server: Socket) -> None:
    await server.media(b"\x20" * 8000 * 599)
    await server.media(b"\x20" * 8000 * 2)
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_FULL]


@pytest.mark.parametrize("code", [1011, 1002])
async def test_a_close_that_means_trouble_is_31921(call: OutboundCall, server: Socket, code: int) -> None:
    await server.ws.close(code=code)
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_CLOSED]


async def test_a_connection_the_server_breaks_off_is_31921(call: OutboundCall, server: Socket) -> None:
    transport = server.request.transport
    assert transport
    transport.abort()
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_CLOSED]
    assert call.stream.close_code == 1006


@pytest.mark.parametrize(
    "url",
    [
        "wss://127.0.0.1:{port}/stream?token=x",
        "http://127.0.0.1:{port}/stream",
        "wss:///stream",
        "ws://127.0.0.1:{port}/gone",
    ],
)
async def test_a_stream_that_cannot_open_is_31920(carrier: TwilioSimulator, application: Application, url: str) -> None:
    application.page(
        "/voice", f'<Connect><Stream url="{url.format(port=application.port)}"/></Connect><Say>After</Say>'
    )
    call = carrier.dial(TO, FROM, Document(application.url + "/voice"))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE]
    assert (call.spoken, call.stream_started.has_come()) == (["After"], False)


async def test_the_status_of_a_refused_handshake_is_told(carrier: TwilioSimulator, application: Application) -> None:
    application.refuse_stream = 410
    call = carrier.dial(TO, FROM, Document(application.stream_page()))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE]
    assert "HTTP 410" in call.errors[0].message


async def test_ws_can_be_forbidden_as_twilio_does(carrier: TwilioSimulator, application: Application) -> None:
    carrier.web.allow_insecure = False
    call = carrier.dial(TO, FROM, Document(application.stream_page()))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE]


async def test_an_abort_leaves_the_server_without_a_close(call: OutboundCall, server: Socket) -> None:
    call.stream.abort()
    await server.done.wait()
    await call.ended.wait()
    assert (server.ws.close_code, call.errors) == (1006, [])
    assert not [message for message in server.seen if message["event"] == "stop"]


async def test_a_close_without_stop(call: OutboundCall, server: Socket) -> None:
    await call.stream.close(1001)
    await server.done.wait()
    await call.ended.wait()
    assert (server.ws.close_code, call.errors) == (1001, [])


async def test_after_a_stall_everything_comes_at_once(call: OutboundCall, server: Socket) -> None:
    await medias(server, 2)
    stalled = time.monotonic()
    call.stream.stall(0.3)
    while True:
        await server.expect("media")
        first = time.monotonic()
        if first > stalled + 0.1:
            break
    for _ in range(10):
        await server.expect("media")
    burst = time.monotonic() - first
    assert first >= stalled + 0.3
    assert burst < 0.15
    stamps = [int(media["timestamp"]) for media in await medias(server, 1)]
    assert set(np.diff(stamps)) == {20}


async def test_skipped_frames_leave_a_gap_in_the_timestamps(call: OutboundCall, server: Socket) -> None:
    await medias(server, 2)
    call.stream.skip(3)
    gaps = np.diff([int(media["timestamp"]) for media in await medias(server, 4)])
    assert sorted(set(gaps)) == [20, 80]
    assert list(gaps).count(80) == 1


async def test_frames_may_have_odd_lengths(application: Application) -> None:
    options = CallOptions(frame_samples=(80, 240, 3))
    async with TwilioSimulator(auth_token="t", options=options) as carrier:
        call = carrier.dial(TO, FROM, Document(application.stream_page()))
        server = await application.socket()
        sent = (await medias(server, 7))[:7]
        assert [len(media["payload"]) for media in sent] == [108, 320, 4, 108, 320, 4, 108]
        assert [media["timestamp"] for media in sent] == ["0", "10", "40", "40", "50", "80", "80"]
        await call.hangup()


async def test_anything_can_be_sent(call: OutboundCall, server: Socket) -> None:
    await call.stream.send_raw('{"event":"nonsense"}')
    assert await server.expect("nonsense")


async def test_a_caller_that_stops_reading_backs_the_servers_socket_up() -> None:
    async with (
        TwilioSimulator(receive_buffer=4096) as carrier,
        Application(signed_by_twilio(carrier.auth_token)) as application,
    ):
        call = carrier.dial(TO, FROM, Document(application.stream_page()))
        server = await application.socket()
        transport = server.request.transport
        assert transport
        transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4096)
        call.stream.stop_reading()
        while transport.get_write_buffer_size() < 20_000:
            await server.media(b"\x20" * 1600)
        await medias(server, 10)
        assert transport.get_write_buffer_size() > 10_000
        stuck = call.stream.received_bytes
        call.stream.resume_reading()
        await server.send(event="mark", mark={"name": "through"})
        await server.send(event="clear")
        await server.expect("mark")
        assert call.stream.received_bytes > stuck
        assert not transport.get_write_buffer_size()
        await call.hangup()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure_application(authority: trustme.CA) -> AsyncIterator[Application]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with Application(signed_by_twilio("token"), tls) as application:
        yield application


async def test_a_wss_stream_opens_with_a_certificate_of_a_local_authority(
    secure_application: Application, authority: trustme.CA
) -> None:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    async with TwilioSimulator(auth_token="token", tls=tls) as carrier:
        carrier.web.allow_insecure = False
        call = carrier.dial(TO, FROM, Document(secure_application.stream_page()))
        server = await secure_application.socket()
        await server.expect("media")
        handshake = await secure_application.hit(lambda hit: hit.path.startswith("/stream"))
        assert (call.stream.url[:6], handshake.valid) == ("wss://", True)
        call.stream.abort()
        await server.done.wait()
        await call.ended.wait()
        assert (server.ws.close_code, call.errors) == (1006, [])


async def test_a_certificate_nobody_vouches_for_is_31920(
    application: Application, secure_application: Application
) -> None:
    async with TwilioSimulator() as carrier:
        stream = f'<Connect><Stream url="{secure_application.stream_url}"/></Connect>'
        call = carrier.dial(TO, FROM, Document(application.page("/voice", stream)))
        await call.ended.wait()
        assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE]


async def test_two_streams_may_follow_each_other(carrier: TwilioSimulator, application: Application) -> None:
    again = f'<Connect><Stream url="{application.stream_url}"/></Connect>'
    call = carrier.dial(TO, FROM, Document(application.stream_page(again)))
    first = await application.socket()
    await first.ws.close()
    second = await application.socket()
    assert first.sid != second.sid
    call.say(BEEP)
    await medias(second, 8)
    assert call.said.any()
    await call.hangup()
    assert len(call.streams) == 2
