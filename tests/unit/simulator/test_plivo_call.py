"""A call of the simulated Plivo against a server that a test drives by hand."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from plivo.utils import validate_v3_signature

from carrier_simulator import CallOptions, Document, Fault, InboundCall, Outcome, PlivoSimulator
from carrier_simulator.plivo.signing import sign
from carrier_simulator.verbs import Target
from connector.carriers.plivo.signatures import plivo_signature_valid
from tests.unit.simulator.application import Application, Socket, Verifier

FRIEND = "+15559990000"
MULAW = 'contentType="audio/x-mulaw;rate=8000"'
BOTH_WAYS = 'bidirectional="true" keepCallAlive="true"'
BEEP = (8000 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)).astype(np.int16)


def signed_by_plivo(auth_token: str) -> Verifier:
    """By Plivo's own package, and the connector's check must find the same."""

    def verify(request: web.Request, url: str, form: dict[str, str], _: bytes) -> bool:
        signature = request.headers.get("X-Plivo-Signature-V3", "")
        nonce = request.headers.get("X-Plivo-Signature-V3-Nonce", "")
        # The package knows http and https alone; the scheme is signed as it is.
        checked = signed_as_handshake if url.startswith("ws") else validate_v3_signature
        valid = bool(checked(request.method, url, nonce, auth_token, signature, dict(form)))
        assert valid == plivo_signature_valid(auth_token, request.method, url, form, nonce, signature)
        return valid

    return verify


def signed_as_handshake(
    method: str, url: str, nonce: str, auth_token: str, signature: str, form: Mapping[str, str]
) -> bool:
    return sign(auth_token, url, (), nonce) in signature.split(",")


@pytest.fixture
async def carrier() -> AsyncIterator[PlivoSimulator]:
    async with PlivoSimulator(options=CallOptions(gather_seconds=0.2)) as simulator:
        yield simulator


@pytest.fixture
async def application(carrier: PlivoSimulator) -> AsyncIterator[Application]:
    async with Application(signed_by_plivo(carrier.auth_token)) as application:
        yield application


def answer(application: Application, attributes: str = f"{BOTH_WAYS} {MULAW}", after: str = "") -> str:
    stream = f"<Stream {attributes}>{application.stream_url}?ref=r&amp;a=b</Stream>"
    return application.page("/hook", stream + after)


@pytest.fixture
async def call(carrier: PlivoSimulator, application: Application) -> InboundCall:
    return carrier.call_in(answer(application), "+15552223333", "+15550001111")


@pytest.fixture
async def server(call: InboundCall, application: Application) -> Socket:
    return await application.socket()


async def play(server: Socket, coded: bytes, content_type: str = "audio/x-mulaw", rate: int = 8000) -> None:
    media = {"contentType": content_type, "sampleRate": rate, "payload": base64.b64encode(coded).decode()}
    await server.write(event="playAudio", media=media)


class Api:
    def __init__(self, carrier: PlivoSimulator, session: aiohttp.ClientSession) -> None:
        self.carrier = carrier
        self.session = session
        self.calls = f"/v1/Account/{carrier.auth_id}/Call/"

    async def __call__(self, method: str, path: str, token: str = "", **body: Any) -> tuple[int, Any]:
        auth = aiohttp.encode_basic_auth(self.carrier.auth_id, token or self.carrier.auth_token)
        headers = {"Authorization": auth}
        async with self.session.request(method, self.carrier.base_url + path, headers=headers, **body) as response:
            return response.status, await response.json() if response.status != 204 else None


@pytest.fixture
async def api(carrier: PlivoSimulator) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(carrier, session)


async def test_the_answer_url_gets_plivos_form_and_signature(
    carrier: PlivoSimulator, call: InboundCall, application: Application
) -> None:
    hit = await application.hit()
    assert (hit.method, hit.valid) == ("POST", True)
    assert hit.form == {
        "CallUUID": call.sid,
        "From": "15552223333",
        "To": "15550001111",
        "CallStatus": "ringing",
        "Direction": "inbound",
        "Event": "StartApp",
        "ParentAuthID": carrier.auth_id,
    }
    assert len(hit.headers["X-Plivo-Signature-V3"].split(",")) == 2


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("query", ["", "?b=2&a=1&empty=", "?room=a%20b%2Fc"])
async def test_the_package_takes_the_signature_whatever_the_url(
    carrier: PlivoSimulator, application: Application, method: str, query: str
) -> None:
    call = carrier.call_in(application.page("/hook", "<Hangup/>") + query, method=method)
    await call.ended.wait()
    assert (await application.hit()).valid


@pytest.mark.parametrize("token", ["another", None])
async def test_signatures_can_be_wrong_or_missing(
    carrier: PlivoSimulator, application: Application, token: str | None
) -> None:
    carrier.web.signing_token = token
    call = carrier.call_in(application.page("/hook", "<Hangup/>"))
    await call.ended.wait()
    hit = await application.hit()
    assert not hit.valid
    assert ("X-Plivo-Signature-V3" in hit.headers) == (token is not None)


async def test_the_stream_opens_signed_at_a_url_with_a_query(
    call: InboundCall, server: Socket, application: Application
) -> None:
    handshake = await application.hit(lambda hit: hit.path.startswith("/stream"))
    assert handshake.valid
    assert dict(server.request.query) == {"ref": "r", "a": "b"}
    assert server.seen[0]["event"] == "start"
    assert server.seen[0]["start"]["callId"] == call.sid


async def test_a_url_of_more_than_2048_characters_is_refused(carrier: PlivoSimulator, application: Application) -> None:
    url = application.stream_url + "?" + "a" * 2048
    call = carrier.call_in(application.page("/hook", f"<Stream {BOTH_WAYS}>{url}</Stream>"))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.STREAM_HANDSHAKE]


async def test_hanging_up_closes_without_a_stop(call: InboundCall, server: Socket) -> None:
    await server.expect("media")
    await call.hangup()
    await server.done.wait()
    assert (server.seen[-1]["event"], server.ws.close_code, call.errors) == ("media", 1000, [])


async def test_kept_alive_the_document_goes_on_when_the_server_closes(
    carrier: PlivoSimulator, application: Application
) -> None:
    call = carrier.call_in(answer(application, after="<Speak>After</Speak>"))
    server = await application.socket()
    assert call.spoken == []
    await server.ws.close()
    await call.ended.wait()
    assert (call.spoken, call.status, call.errors) == (["After"], "completed", [])


async def test_not_kept_alive_the_call_ends_with_its_document(
    carrier: PlivoSimulator, application: Application
) -> None:
    call = carrier.call_in(answer(application, f'bidirectional="true" {MULAW}', '<Wait length="1"/>'))
    server = await application.socket()
    await call.ended.wait()
    await server.done.wait()
    assert (call.status, server.ws.close_code) == ("completed", 1000)


async def test_checkpoints_come_back_when_they_are_played(call: InboundCall, server: Socket) -> None:
    sent = time.monotonic()
    await play(server, b"\x20" * 1600)
    await server.write(event="checkpoint", streamId=server.sid, name="played")
    assert (await server.expect("playedStream"))["name"] == "played"
    assert time.monotonic() - sent > 0.19


async def test_checkpoints_in_what_is_cleared_never_come_back(call: InboundCall, server: Socket) -> None:
    await play(server, b"\x20" * 40000)
    await server.write(event="checkpoint", streamId=server.sid, name="lost")
    await server.write(event="clearAudio", streamId=server.sid)
    await server.expect("clearedAudio")
    await server.write(event="checkpoint", streamId=server.sid, name="next")
    assert (await server.expect("playedStream"))["name"] == "next"
    assert call.stream.buffered == 0


async def test_more_than_a_minute_of_audio_is_not_queued(call: InboundCall, server: Socket) -> None:
    for _ in range(16):
        await play(server, b"\x20" * 32_000)
    await server.expect("incorrectPayload")
    assert [error.code for error in call.errors] == [Fault.STREAM_FULL]
    assert 55 < call.stream.buffered <= 60
    assert not call.stream.ended.has_come()


async def test_what_is_wrong_is_told_and_the_stream_goes_on(call: InboundCall, server: Socket) -> None:
    await play(server, bytes(320), "audio/x-l16")
    assert "audio/x-l16" in (await server.expect("incorrectPayload"))["reason"]
    await server.write(event="checkpoint", streamId=server.sid, name="still here")
    await server.expect("playedStream")
    assert [error.code for error in call.errors] == [Fault.STREAM_MESSAGE]


async def test_keys_go_both_ways(call: InboundCall, server: Socket) -> None:
    await call.press("5")
    assert (await server.expect("dtmf"))["dtmf"]["digit"] == "5"
    await server.write(event="sendDTMF", dtmf="12")
    await server.write(event="clearAudio", streamId=server.sid)
    await server.expect("clearedAudio")
    assert call.stream.received_digits == "12"


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_linear_sound_arrives_as_it_was_said(
    carrier: PlivoSimulator, application: Application, rate: int
) -> None:
    call = carrier.call_in(answer(application, f'{BOTH_WAYS} contentType="audio/x-l16;rate={rate}"'))
    server = await application.socket()
    begins = call.say(BEEP)
    coded = b""
    while len(coded) < 2 * begins + rate // 2:
        media = (await server.expect("media"))["media"]
        assert len(base64.b64decode(media["payload"])) == rate // 50 * 2
        coded += base64.b64decode(media["payload"])
    await play(server, coded, "audio/x-l16", rate)
    await call.first_sound.wait()
    await server.write(event="checkpoint", streamId=server.sid, name="played")
    await server.expect("playedStream")
    for sound in (call.said, call.heard):
        loud = np.flatnonzero(np.abs(sound.astype(int)) > 4000)
        piece = sound[loud[0] : loud[0] + rate // 20]
        assert abs(np.argmax(np.abs(np.fft.rfft(piece, rate))) - 440) < 12


async def test_digits_are_sent_to_the_action(carrier: PlivoSimulator, application: Application) -> None:
    action = application.page("/pin", "<Speak>Thank you</Speak>")
    asks = f'<GetInput action="{action}" inputType="dtmf" numDigits="4"><Speak>PIN?</Speak></GetInput>'
    call = carrier.call_in(application.page("/hook", asks))
    await call.enter("1234")
    await call.ended.wait()
    form = (await application.hit(lambda hit: hit.path == "/pin")).form
    assert (form["Digits"], form["InputType"], form["CallUUID"]) == ("1234", "dtmf", call.sid)
    assert call.spoken == ["PIN?", "Thank you"]


async def test_a_call_is_rejected(carrier: PlivoSimulator, application: Application) -> None:
    call = carrier.call_in(application.page("/hook", '<Hangup reason="busy"/>'))
    await call.ended.wait()
    assert (call.status, call.answered.has_come()) == ("busy", False)


async def test_the_caller_is_connected_with_somebody_else(carrier: PlivoSimulator, application: Application) -> None:
    carrier.script("15559990000", Outcome(talks=0.0))
    after = application.page("/after", "<Hangup/>")
    call = carrier.call_in(application.page("/hook", f'<Dial action="{after}"><Number>15559990000</Number></Dial>'))
    await call.ended.wait()
    assert (await application.hit(lambda hit: hit.path == "/after")).form["DialStatus"] == "completed"
    assert call.dialled == [Target("15559990000")]


async def test_the_api_hangs_up(api: Api, call: InboundCall, server: Socket) -> None:
    assert await api("DELETE", f"{api.calls}{call.sid}/") == (204, None)
    await call.ended.wait()
    await server.done.wait()
    assert call.status == "completed"
    assert (await api("GET", f"{api.calls}{call.sid}/"))[1]["call_state"] == "completed"


async def test_the_api_transfers_to_another_document(
    api: Api, call: InboundCall, server: Socket, application: Application
) -> None:
    url = application.page("/dial", f"<Dial><Number>{FRIEND}</Number></Dial>")
    status, body = await api("POST", f"{api.calls}{call.sid}/", json={"legs": "aleg", "aleg_url": url})
    await call.transferred.wait()
    assert (status, body["call_uuids"]) == (202, [call.sid])
    await server.done.wait()
    assert call.dialled == [Target(FRIEND)]


async def test_the_api_places_a_call(api: Api, carrier: PlivoSimulator, application: Application) -> None:
    fields = {
        "to": "15559990000",
        "from": "15551112222",
        "answer_url": application.page("/voice", "<Speak>Hello</Speak>"),
        "hangup_url": application.page("/hangup", ""),
    }
    status, body = await api("POST", api.calls, json=fields)
    call = await carrier.next_call()
    await call.finished()
    assert (status, body["request_uuid"], call.spoken, call.to) == (201, call.sid, ["Hello"], FRIEND)
    voice = await application.hit(lambda hit: hit.path == "/voice")
    assert (voice.form["ALegUUID"], voice.form["CallStatus"], voice.valid) == (call.sid, "in-progress", True)
    hangup = await application.hit(lambda hit: hit.path == "/hangup")
    assert (hangup.form["CallStatus"], hangup.form["Event"], hangup.valid) == ("completed", "Hangup", True)


async def test_a_ringing_call_is_canceled(api: Api, carrier: PlivoSimulator) -> None:
    carrier.script(FRIEND, Outcome(after=60))
    call = carrier.dial(FRIEND, "+15551112222", Document(inline="<Response/>"))
    await call.ringing.wait()
    assert (await api("POST", f"{api.calls}{call.sid}/", json={"aleg_url": "http://a"}))[0] == 400
    await api("DELETE", f"{api.calls}{call.sid}/")
    await call.ended.wait()
    assert call.status == "canceled"


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "nobody"},
        {"from": ""},
        {"answer_url": "wss://a"},
        {"answer_method": "PUT"},
        {"ring_timeout": "soon"},
        {"hangup_url": "nowhere"},
        {"record": "true"},
    ],
)
async def test_a_wrong_request_places_nothing(api: Api, carrier: PlivoSimulator, changes: dict[str, str]) -> None:
    fields = {"to": "15559990000", "from": "15551112222", "answer_url": "http://127.0.0.1:9/"}
    status, body = await api("POST", api.calls, json=fields | changes)
    assert (status, set(body)) == (400, {"api_id", "error"})
    assert not carrier.calls


async def test_a_form_is_not_taken(api: Api, carrier: PlivoSimulator) -> None:
    fields = {"to": "15559990000", "from": "15551112222", "answer_url": "http://127.0.0.1:9/"}
    assert (await api("POST", api.calls, data=fields))[0] == 400
    assert not carrier.calls


@pytest.mark.parametrize("fields", [{}, {"aleg_url": "nowhere"}, {"legs": "both", "aleg_url": "http://a"}])
async def test_a_wrong_transfer_changes_nothing(api: Api, call: InboundCall, server: Socket, fields: Any) -> None:
    assert (await api("POST", f"{api.calls}{call.sid}/", json=fields))[0] == 400
    with pytest.raises(TimeoutError):
        await call.stream.ended.wait(0.05)


async def test_a_call_that_is_over_or_unknown_or_of_others_is_refused(api: Api, call: InboundCall) -> None:
    await call.stream_started.wait()
    await call.hangup()
    for path in (f"{api.calls}{call.sid}/", f"{api.calls}nobody/", f"/v1/Account/other/Call/{call.sid}/"):
        assert (await api("DELETE", path))[0] == 404


async def test_a_wrong_token_is_refused(api: Api, call: InboundCall) -> None:
    await call.answered.wait()
    assert (await api("DELETE", f"{api.calls}{call.sid}/", "wrong"))[0] == 401
    assert (await api("POST", api.calls, "wrong"))[0] == 401
    assert not call.is_over


async def test_a_stream_reports_its_start_and_its_stop(carrier: PlivoSimulator, application: Application) -> None:
    report = application.page("/report", "")
    carrier.call_in(answer(application, f'{BOTH_WAYS} {MULAW} statusCallbackUrl="{report}"'))
    server = await application.socket()
    started = await application.hit(lambda hit: hit.path == "/report")
    await server.ws.close()
    stopped = await application.hit(lambda hit: hit.path == "/report")
    assert (started.form["Event"], stopped.form["Event"]) == ("StartStream", "StopStream")
    assert started.form["StreamID"] == stopped.form["StreamID"] == server.sid
