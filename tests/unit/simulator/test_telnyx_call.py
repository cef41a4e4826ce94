"""A call of the simulated Telnyx against a server that a test drives by hand."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from carrier_simulator import Document, Fault, InboundCall, Outcome, TelnyxSimulator
from carrier_simulator.verbs import Target
from connector.carriers.telnyx.signatures import telnyx_public_key, telnyx_signature_valid
from tests.unit.simulator.application import Application, Socket, Verifier

FRIEND = "+15559990000"
RTP = 'bidirectionalMode="rtp"'
BEEP = (8000 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)).astype(np.int16)


def signed_by_telnyx(public_key: str) -> Verifier:
    """As Telnyx documents it."""

    def verify(request: web.Request, _url: str, _form: dict[str, str], body: bytes) -> bool:
        timestamp = request.headers.get("telnyx-timestamp", "")
        signature = base64.b64decode(request.headers.get("telnyx-signature-ed25519", ""))
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
            key.verify(signature, f"{timestamp}|".encode() + body)
        except InvalidSignature:
            return False
        return abs(time.time() - int(timestamp)) < 300

    return verify


@pytest.fixture
async def carrier() -> AsyncIterator[TelnyxSimulator]:
    async with TelnyxSimulator() as simulator:
        yield simulator


@pytest.fixture
async def application(carrier: TelnyxSimulator) -> AsyncIterator[Application]:
    async with Application(signed_by_telnyx(carrier.public_key)) as application:
        yield application


def answer(application: Application, attributes: str = RTP, after: str = '<Pause length="60"/>') -> str:
    start = f'<Start><Stream url="{application.stream_url}?ref=r" {attributes}/></Start>'
    return application.page("/hook", start + after)


@pytest.fixture
async def call(carrier: TelnyxSimulator, application: Application) -> InboundCall:
    return carrier.call_in(answer(application), "+15552223333", "+15550001111")


@pytest.fixture
async def server(call: InboundCall, application: Application) -> Socket:
    return await application.socket()


async def play(server: Socket, coded: bytes) -> None:
    await server.write(event="media", media={"payload": base64.b64encode(coded).decode()})


class Api:
    def __init__(self, carrier: TelnyxSimulator, session: aiohttp.ClientSession) -> None:
        self.carrier = carrier
        self.session = session
        self.calls = f"/v2/texml/Accounts/{carrier.account_sid}/Calls"

    async def __call__(self, method: str, path: str, key: str = "", **body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key or self.carrier.api_key}"}
        async with self.session.request(method, self.carrier.base_url + path, headers=headers, **body) as response:
            return response.status, await response.json()


@pytest.fixture
async def api(carrier: TelnyxSimulator) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(carrier, session)


async def test_the_webhook_has_telnyxs_form_and_signature(
    carrier: TelnyxSimulator, call: InboundCall, application: Application
) -> None:
    hit = await application.hit()
    assert (hit.method, hit.valid) == ("POST", True)
    assert hit.form == {
        "AccountSid": carrier.account_sid,
        "ApiVersion": "v2/texml",
        "CallSid": call.sid,
        "CallSidLegacy": call.sid,
        "CallStatus": "ringing",
        "ConnectionId": carrier.application_sid,
        "Direction": "inbound",
        "From": "+15552223333",
        "To": "+15550001111",
    }


async def test_the_connectors_own_check_takes_the_signature(carrier: TelnyxSimulator) -> None:
    seen: dict[str, Any] = {}

    def check(request: web.Request, _url: str, _form: dict[str, str], body: bytes) -> bool:
        seen.update(headers=dict(request.headers), body=body)
        return True

    async with Application(check) as application:
        call = carrier.call_in(application.page("/hook", "<Hangup/>"))
        await call.ended.wait()
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    given = headers["telnyx-timestamp"], headers["telnyx-signature-ed25519"]
    key = telnyx_public_key(carrier.public_key)
    assert telnyx_signature_valid(key, given[0], seen["body"], given[1], time.time())


@pytest.mark.parametrize("token", ["another", None])
async def test_signatures_can_be_wrong_or_missing(
    carrier: TelnyxSimulator, application: Application, token: str | None
) -> None:
    carrier.web.signing_token = token
    call = carrier.call_in(application.page("/hook", "<Hangup/>"))
    await call.ended.wait()
    hit = await application.hit()
    assert not hit.valid
    assert ("telnyx-timestamp" in hit.headers) == (token is not None)


async def test_a_signature_can_be_old(carrier: TelnyxSimulator, application: Application) -> None:
    carrier.signer.clock = lambda: time.time() - 400
    call = carrier.call_in(application.page("/hook", "<Hangup/>"))
    await call.ended.wait()
    assert not (await application.hit()).valid


async def test_a_stream_opens_unsigned_at_a_url_with_a_query(
    call: InboundCall, server: Socket, application: Application
) -> None:
    handshake = await application.hit(lambda hit: hit.path.startswith("/stream"))
    assert not [name for name in handshake.headers if "signature" in name.lower()]
    assert server.request.query["ref"] == "r"
    assert [message["event"] for message in server.seen[:2]] == ["connected", "start"]
    start = server.seen[1]["start"]
    assert (start["from"], start["to"]) == ("+15552223333", "+15550001111")
    assert call.sid not in str(start)


async def test_the_document_goes_on_while_the_stream_runs(carrier: TelnyxSimulator, application: Application) -> None:
    call = carrier.call_in(answer(application, after='<Say>Meanwhile</Say><Pause length="60"/>'))
    server = await application.socket()
    await server.expect("media")
    assert call.spoken == ["Meanwhile"]


async def test_a_document_without_a_pause_ends_the_call_under_the_stream(
    carrier: TelnyxSimulator, application: Application
) -> None:
    call = carrier.call_in(answer(application, after='<Pause length="1"/>'))
    server = await application.socket()
    await call.ended.wait()
    await server.done.wait()
    assert (server.seen[-1]["event"], server.ws.close_code) == ("stop", 1000)


async def test_closing_the_socket_does_not_hang_up(call: InboundCall, server: Socket) -> None:
    await server.ws.close()
    await call.stream.ended.wait()
    with pytest.raises(TimeoutError):
        await call.ended.wait(0.1)
    await call.hangup()
    assert (call.status, call.errors) == ("completed", [])


async def test_hanging_up_says_stop_and_closes(call: InboundCall, server: Socket) -> None:
    await call.hangup()
    await server.done.wait()
    assert (server.seen[-1]["event"], server.ws.close_code, call.errors) == ("stop", 1000, [])


async def test_what_is_played_comes_back_as_the_outbound_track(
    carrier: TelnyxSimulator, application: Application
) -> None:
    carrier.call_in(answer(application, RTP + ' track="both_tracks"'))
    server = await application.socket()
    await play(server, b"\x10" * 320)
    heard = b""
    while b"\x10" * 320 not in heard:
        message = await server.expect("media")
        if message["media"]["track"] == "outbound":
            heard += base64.b64decode(message["media"]["payload"])
    chunks = [m["media"] for m in server.seen if m["event"] == "media"]
    for track in ("inbound", "outbound"):
        own = [media for media in chunks if media["track"] == track]
        assert [media["chunk"] for media in own] == [str(index + 1) for index in range(len(own))]
        assert {len(base64.b64decode(media["payload"])) for media in own} == {160}


async def test_frames_may_come_out_of_order(call: InboundCall, server: Socket) -> None:
    call.stream.disorder = (2, 0, 1)
    chunks: list[int] = []
    numbers: list[int] = []
    while len(chunks) < 2 or chunks == sorted(chunks) or chunks.index(max(chunks)) > len(chunks) - 3:
        message = await server.expect("media")
        chunks.append(int(message["media"]["chunk"]))
        numbers.append(int(message["sequence_number"]))
    first = next(index for index, chunk in enumerate(chunks) if chunks[index + 1] < chunk)
    assert chunks[first : first + 3] == [chunks[first + 1] + 2, chunks[first + 1], chunks[first + 1] + 1]
    assert np.argsort(numbers).tolist() == np.argsort(chunks).tolist()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"event": "nonsense"}, Fault.MALFORMED_FRAME),
        ({"event": "media", "media": {"payload": "//8="}}, Fault.INVALID_MEDIA),
    ],
)
async def test_what_is_wrong_is_told_and_the_stream_goes_on(
    call: InboundCall, server: Socket, message: dict[str, Any], code: Fault
) -> None:
    await server.write(**message)
    assert (await server.expect("error"))["payload"]["code"] == int(code)
    await server.write(event="mark", mark={"name": "still here"})
    assert (await server.expect("mark"))["mark"]["name"] == "still here"
    assert [error.code for error in call.errors] == [code]


async def test_samples_are_refused_in_a_stream_of_files(carrier: TelnyxSimulator, application: Application) -> None:
    call = carrier.call_in(answer(application, ""))
    server = await application.socket()
    await play(server, b"\xfe" * 160)
    await play(server, b"\xfe" * 160)
    codes = [(await server.expect("error"))["payload"]["code"] for _ in range(2)]
    assert codes == [Fault.INVALID_MEDIA, Fault.RATE_LIMIT]
    assert not call.first_sound.has_come()


@pytest.mark.parametrize(
    ("attributes", "rate", "size"),
    [
        ('codec="PCMA" bidirectionalCodec="PCMA"', 8000, 160),
        ('codec="L16" bidirectionalCodec="L16" bidirectionalSamplingRate="16000"', 16000, 640),
    ],
    ids=["PCMA", "L16"],
)
async def test_other_codings_carry_the_same_sound(
    carrier: TelnyxSimulator, application: Application, attributes: str, rate: int, size: int
) -> None:
    call = carrier.call_in(answer(application, f"{RTP} {attributes}"))
    server = await application.socket()
    begins = call.say(BEEP)
    coded = b""
    while len(coded) < (begins * (size // 160) // (rate // 8000)) + 8 * size:
        media = (await server.expect("media"))["media"]
        assert len(base64.b64decode(media["payload"])) == size
        coded += base64.b64decode(media["payload"])
    await play(server, coded)
    await call.first_sound.wait()
    await server.write(event="mark", mark={"name": "played"})
    await server.expect("mark")
    for sound in (call.said, call.heard):
        loud = np.flatnonzero(np.abs(sound.astype(int)) > 4000)
        piece = sound[loud[0] : loud[0] + rate // 20]
        assert abs(np.argmax(np.abs(np.fft.rfft(piece, rate))) - 440) < 12


async def test_the_api_hangs_up_by_texmls_id(api: Api, call: InboundCall, server: Socket) -> None:
    status, body = await api("POST", f"{api.calls}/{call.sid}", data={"Status": "completed"})
    await call.ended.wait()
    assert (status, body["sid"], call.status) == (200, call.sid, "completed")
    await server.done.wait()
    assert server.seen[-1]["event"] == "stop"
    assert (await api("GET", f"{api.calls}/{call.sid}"))[1]["status"] == "completed"


async def test_the_api_hangs_up_by_the_streams_id(api: Api, call: InboundCall, server: Socket) -> None:
    control_id = server.seen[1]["start"]["call_control_id"]
    status, body = await api("POST", f"/v2/calls/{control_id}/actions/hangup", json={})
    await call.ended.wait()
    assert (status, body) == (200, {"data": {"result": "ok"}})


async def test_the_api_redirects_to_another_document(
    api: Api, call: InboundCall, server: Socket, application: Application
) -> None:
    texml = f"<Response><Dial>{FRIEND}</Dial></Response>"
    assert (await api("POST", f"{api.calls}/{call.sid}", data={"Texml": texml}))[0] == 200
    await call.transferred.wait()
    assert call.dialled == [Target(FRIEND)]
    url = application.page("/other", "<Say>Moved</Say>")
    assert (await api("POST", f"{api.calls}/{call.sid}", json={"Url": url}))[0] == 200
    await call.ended.wait()
    assert call.spoken == ["Moved"]


async def test_the_api_reads_a_text_out_beside_the_document(
    api: Api, carrier: TelnyxSimulator, call: InboundCall, server: Socket
) -> None:
    control_id = server.seen[1]["start"]["call_control_id"]
    speak = f"/v2/calls/{control_id}/actions/speak"
    said = {"payload": "Goodbye.", "voice": "female", "command_id": "1"}
    for _ in range(2):
        assert (await api("POST", speak, json=said))[0] == 200
    for wrong in ({"payload": "Goodbye."}, {"voice": "female"}, said | {"text": "x"}, said | {"payload": "x" * 3001}):
        assert (await api("POST", speak, json=wrong))[0] == 422
    async with asyncio.timeout(20):
        while not call.spoken:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
    assert (call.spoken, call.is_over) == (["Goodbye."], False)
    await api("POST", speak, json=said | {"command_id": "2", "payload": "Cut off"})
    await api("POST", f"/v2/calls/{control_id}/actions/hangup", json={})
    await call.finished()
    assert call.spoken == ["Goodbye."]
    carrier.knows_texml = False
    assert (await api("POST", f"{api.calls}/{call.sid}", data={"Status": "completed"}))[0] == 404


async def test_the_api_transfers(api: Api, call: InboundCall, server: Socket) -> None:
    control_id = server.seen[1]["start"]["call_control_id"]
    assert (await api("POST", f"/v2/calls/{control_id}/actions/transfer", json={"to": FRIEND}))[0] == 200
    await call.transferred.wait()
    assert call.dialled == [Target(FRIEND)]


async def test_the_api_places_a_call(api: Api, carrier: TelnyxSimulator, application: Application) -> None:
    application.page("/status", "")
    fields = {
        "To": FRIEND,
        "From": "+15551112222",
        "Url": application.page("/voice", "<Say>Hello</Say>"),
        "ApplicationSid": carrier.application_sid,
        "StatusCallback": application.url + "/status",
        "StatusCallbackEvent": "ringing answered completed",
    }
    status, body = await api("POST", api.calls, data=fields)
    call = await carrier.next_call()
    await call.finished()
    assert (status, body["status"], body["call_sid"]) == (200, "queued", call.sid)
    assert call.spoken == ["Hello"]
    hits = [application.hits.get_nowait() for _ in range(application.hits.qsize())]
    told = [hit for hit in hits if hit.path == "/status"]
    assert [hit.form["CallStatus"] for hit in told] == ["ringing", "in-progress", "completed"]
    assert all(hit.valid for hit in hits)


async def test_a_ringing_call_is_canceled(api: Api, carrier: TelnyxSimulator) -> None:
    carrier.script(FRIEND, Outcome(after=60))
    call = carrier.dial(FRIEND, "+15551112222", Document(inline="<Response/>"))
    await call.ringing.wait()
    assert (await api("POST", f"{api.calls}/{call.sid}", data={"Texml": "<Response/>"}))[0] == 422
    await api("POST", f"{api.calls}/{call.sid}", data={"Status": "completed"})
    await call.ended.wait()
    assert call.status == "canceled"


@pytest.mark.parametrize(
    "changes",
    [
        {"To": "5551112222"},
        {"From": ""},
        {"Url": "ftp://a"},
        {"Url": ""},
        {"Url": "", "Texml": "<Fax/>"},
        {"ApplicationSid": "1"},
        {"Timeout": "500"},
        {"StatusCallback": "nowhere"},
        {"StatusCallback": "http://a", "StatusCallbackEvent": "eaten"},
        {"Method": "PUT"},
    ],
)
async def test_a_wrong_request_places_nothing(api: Api, carrier: TelnyxSimulator, changes: dict[str, str]) -> None:
    fields = {
        "To": FRIEND,
        "From": "+15551112222",
        "Url": "http://127.0.0.1:9/",
        "ApplicationSid": carrier.application_sid,
    }
    status, body = await api("POST", api.calls, data=fields | changes)
    assert (status, set(body)) == (422, {"errors"})
    assert not carrier.calls


@pytest.mark.parametrize("fields", [{}, {"Status": "busy"}, {"Texml": "<Say/>"}, {"Url": "nowhere"}])
async def test_a_wrong_update_changes_nothing(api: Api, call: InboundCall, server: Socket, fields: Any) -> None:
    assert (await api("POST", f"{api.calls}/{call.sid}", data=fields))[0] == 422
    with pytest.raises(TimeoutError):
        await call.ended.wait(0.05)


async def test_a_transfer_to_nowhere_is_refused(api: Api, call: InboundCall, server: Socket) -> None:
    control_id = server.seen[1]["start"]["call_control_id"]
    assert (await api("POST", f"/v2/calls/{control_id}/actions/transfer", json={"to": "nobody"}))[0] == 422


async def test_a_call_that_is_over_or_unknown_or_of_others_is_refused(api: Api, call: InboundCall) -> None:
    await call.stream_started.wait()
    await call.hangup()
    assert (await api("POST", f"{api.calls}/{call.sid}", data={"Status": "completed"}))[0] == 422
    assert (await api("POST", f"{api.calls}/v3:nobody", data={"Status": "completed"}))[0] == 404
    assert (await api("POST", "/v2/calls/v3:nobody/actions/hangup"))[0] == 404
    assert (await api("POST", f"/v2/texml/Accounts/other/Calls/{call.sid}", data={"Status": "completed"}))[0] == 404


async def test_a_wrong_key_is_refused(api: Api, call: InboundCall) -> None:
    await call.answered.wait()
    for path in (f"{api.calls}/{call.sid}", "/v2/calls/v3:x/actions/hangup", api.calls):
        status, body = await api("POST", path, "wrong", data={"Status": "completed"})
        assert (status, body["errors"][0]["code"]) == (401, "10009")
    assert not call.is_over


async def test_a_stream_in_a_connect_holds_the_document_up(carrier: TelnyxSimulator, application: Application) -> None:
    report = application.page("/report", "")
    stream = f'<Stream url="{application.stream_url}" {RTP} statusCallback="{report}"/>'
    call = carrier.call_in(application.page("/hook", f"<Connect>{stream}</Connect><Say>After</Say>"))
    server = await application.socket()
    assert (await application.hit(lambda hit: hit.path == "/report")).form["StreamEvent"] == "stream-started"
    assert call.spoken == []
    await server.ws.close()
    await call.ended.wait()
    assert call.spoken == ["After"]
    assert (await application.hit(lambda hit: hit.path == "/report")).form["StreamEvent"] == "stream-stopped"


async def test_digits_are_sent_to_the_action(carrier: TelnyxSimulator, application: Application) -> None:
    action = application.page("/pin", "<Say>Thank you</Say>")
    call = carrier.call_in(application.page("/hook", f'<Gather action="{action}" numDigits="4"/>'))
    await call.enter("1234")
    await call.ended.wait()
    form = (await application.hit(lambda hit: hit.path == "/pin")).form
    assert (form["Digits"], form["CallSid"], call.spoken) == ("1234", call.sid, ["Thank you"])


async def test_whoever_was_dialled_hangs_up(carrier: TelnyxSimulator, application: Application) -> None:
    carrier.script(FRIEND, Outcome(talks=0.0))
    after = application.page("/after", "<Hangup/>")
    call = carrier.call_in(application.page("/hook", f'<Dial action="{after}"><Number>{FRIEND}</Number></Dial>'))
    await call.ended.wait()
    form = (await application.hit(lambda hit: hit.path == "/after")).form
    assert (form["DialCallStatus"], form["CallSid"]) == ("completed", call.sid)


async def test_a_call_is_rejected(carrier: TelnyxSimulator, application: Application) -> None:
    call = carrier.call_in(application.page("/hook", '<Reject reason="busy"/>'))
    await call.ended.wait()
    assert (call.status, call.answered.has_come()) == ("busy", False)
