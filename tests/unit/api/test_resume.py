"""The resume URL, without a carrier, a room or a store: who is let in, and the document for the phone."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twilio.request_validator import RequestValidator

from carrier_simulator.plivo.signing import PlivoSigner
from connector.accounts import CarrierAccount, CarrierAccounts
from connector.api.carrier import resume_routes
from connector.api.carrier.carrier_requests import CarrierRequests
from connector.api.carrier.resume_routes import TRIES, ResumeRoutes
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.call.record.changes import new_record
from connector.call.session.returns import Resume, ResumeVerdict
from connector.carriers.resume_url import resume_url
from connector.carriers.telnyx import Telnyx
from connector.errors import ConnectorError, TokenExpired, Unavailable
from connector.metrics import Metrics
from connector.model.call import CallRecord, CallRequest, Direction, ParticipantSpec
from connector.model.provider import Provider
from connector.storage.base import StoreError
from connector.tokens import TokenSigner, stream_name, stream_named
from tests.carriers import CARRIERS

PUBLIC, US = "https://calls.example.com", "https://us.example.com"
SIGNER = TokenSigner("secret")
CALL, CARRIER_CALL = "call_1", "CA1"
ACCOUNT = {Provider.TWILIO: "AC1", Provider.PLIVO: "MA1", Provider.TELNYX: "telnyx-account"}
KEY = Ed25519PrivateKey.generate()
SECRET = {
    Provider.TWILIO: "token",
    Provider.PLIVO: "token",
    Provider.TELNYX: b64encode(KEY.public_key().public_bytes_raw()).decode(),
}
HANG_UP = ["Hangup"]
every = pytest.mark.parametrize("provider", list(Provider))


def request_of(provider: Provider) -> CallRequest:
    return CallRequest(
        call_id=CALL,
        room="room",
        participant=ParticipantSpec("caller"),
        direction=Direction.INBOUND,
        provider=provider,
        region="us",
    )


class Calls:
    """The part of the call layer that the resume URL needs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, bool]] = []
        self.said: list[tuple[str, str]] = []
        self.verdict = ResumeVerdict.OVER
        self.error: Exception | None = None
        self.hangs = False
        self.known: CallRecord | None = None
        self.deadline = time.time() + 5
        self.provider = Provider.TWILIO

    def begin(self, provider: Provider) -> None:
        self.provider = provider
        self.known = replace(new_record(request_of(provider), "owner"), carrier_call_id=CARRIER_CALL)

    async def record(self, call_id: str) -> CallRecord | None:
        return self.known if call_id == CALL else None

    async def resume(self, call_id: str, stream: int, *, carrier_let_go: bool) -> Resume:
        self.asked.append((call_id, stream, carrier_let_go))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return Resume(self.verdict, stream + 1, self.deadline, request_of(self.provider))

    async def carrier_said(self, call_id: str, status: str, number: int) -> object:
        self.said.append((call_id, status))
        return None


class Phone:
    """A carrier that asks how the call goes on."""

    def __init__(self, client: TestClient[web.Request, web.Application], provider: Provider) -> None:
        self.provider = provider
        self._client = client
        self.signed = True

    @property
    def call_field(self) -> str:
        return "CallUUID" if self.provider is Provider.PLIVO else "CallSid"

    def form(self) -> dict[str, str]:
        account = "ParentAuthID" if self.provider is Provider.PLIVO else "AccountSid"
        return {self.call_field: CARRIER_CALL, account: ACCOUNT[self.provider], "CallStatus": "in-progress"}

    async def ask(
        self, stream: int = 1, expires_at: float | None = None, method: str = "POST", query: str = "", **changes: str
    ) -> tuple[int, list[ElementTree.Element]]:
        token = SIGNER.mint(stream_name(CALL, stream), expires_at or time.time() + 90)
        return await self.fetch(f"{PUBLIC}/{self.provider.value}/{token}/resume{query}", method, **changes)

    async def fetch(self, url: str, method: str = "POST", **changes: str) -> tuple[int, list[ElementTree.Element]]:
        form = self.form() | changes
        if method == "GET":
            url, form = url + ("&" if "?" in url else "?") + urlencode(form), {}
        body = urlencode(form)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
        headers |= self._signature(method, url, form, body) if self.signed else {}
        path = url[len("https://") :].partition("/")[2]
        async with self._client.request(method, f"/{path}", data=body or None, headers=headers) as response:
            text = await response.text()
            assert response.content_type == "text/xml", text
            root = ElementTree.fromstring(text)
            assert root.tag == "Response"
            return response.status, list(root)

    def _signature(self, method: str, url: str, form: dict[str, str], body: str) -> dict[str, str]:
        match self.provider:
            case Provider.TWILIO:
                return {"X-Twilio-Signature": RequestValidator("token").compute_signature(url, form)}
            case Provider.PLIVO:
                return dict(PlivoSigner().request("token", method, url, list(form.items()), body.encode()))
            case Provider.TELNYX:
                now = str(int(time.time()))
                signature = b64encode(KEY.sign(f"{now}|{body}".encode())).decode()
                return {"telnyx-timestamp": now, "telnyx-signature-ed25519": signature}


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def client(calls: Calls) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    origins = Origins(PUBLIC, {"us": US}, {})
    accounts = {
        name: CarrierAccounts(carrier.account_rules, (CarrierAccount(ACCOUNT[name], (SECRET[name],), ()),))
        for name, carrier in CARRIERS.items()
    }
    signatures = SignatureCheck(origins, CARRIERS, accounts)
    routes = ResumeRoutes(calls, CarrierRequests(SIGNER, signatures, origins, CARRIERS, Metrics()))
    app = web.Application()
    routes.add_to(app.router)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
def phone(client: TestClient[web.Request, web.Application], provider: Provider, calls: Calls) -> Phone:
    calls.begin(provider)
    return Phone(client, provider)


def tags(verbs: list[ElementTree.Element]) -> list[str]:
    return [verb.tag for verb in verbs]


def stream_of(verbs: list[ElementTree.Element]) -> tuple[str, int, float]:
    """The origin, the number and the expiry of the stream that the document opens, and the way back is its own."""
    stream = next(element for verb in verbs for element in verb.iter("Stream"))
    url = stream.get("url") or stream.text or ""
    token = url.rpartition("ref=")[2] if "ref=" in url else url.rpartition("/")[2]
    name, expires_at = SIGNER.peek(token)
    call_id, number = stream_named(name)
    assert call_id == CALL
    back = verbs[-1]
    assert (back.tag, back.text, back.get("method")) == ("Redirect", resume_url(url), "POST")
    return f"https://{urlsplit(url).netloc}", number, expires_at


@every
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_lost_stream_is_opened_again_without_a_greeting(phone: Phone, calls: Calls, method: str) -> None:
    calls.verdict = ResumeVerdict.STREAM
    status, verbs = await phone.ask(stream=2, method=method)
    assert status == 200
    assert stream_of(verbs) == (US, 3, calls.deadline)
    assert not {"Say", "Speak"} & set(tags(verbs))
    # Only a stream beside the document may still be there.
    assert calls.asked == [(CALL, 2, phone.provider is not Provider.TELNYX)]


@every
async def test_a_call_that_is_over_is_hung_up(phone: Phone, calls: Calls) -> None:
    assert tags((await phone.ask())[1]) == HANG_UP
    assert calls.asked


@every
async def test_a_phone_with_a_live_stream_waits_and_asks_again(phone: Phone, calls: Calls) -> None:
    calls.verdict = ResumeVerdict.LIVES
    _, (pause, back) = await phone.ask(stream=2)
    assert pause.get("length") == "10"
    assert back.text
    calls.verdict = ResumeVerdict.STREAM
    _, verbs = await phone.fetch(back.text.replace(US, PUBLIC))
    assert stream_of(verbs)[1] == 3
    assert [number for _, number, _ in calls.asked] == [2, 2]


@every
async def test_an_expired_token_still_names_an_active_call(phone: Phone, calls: Calls) -> None:
    calls.verdict = ResumeVerdict.STREAM
    assert stream_of((await phone.ask(expires_at=1.0))[1])[1] == 2


async def test_telnyx_in_a_connect_has_let_the_stream_go(calls: Calls) -> None:
    assert not Telnyx(in_connect=True).stream_outlives_document


@every
async def test_nobody_else_is_let_in(phone: Phone, calls: Calls) -> None:
    phone.signed = False
    calls.verdict = ResumeVerdict.STREAM
    status, verbs = await phone.ask()
    assert (status, tags(verbs), calls.asked) == (403, HANG_UP, [])


@every
@pytest.mark.parametrize("token", ["x", SIGNER.mint("call_1:0", 1e12), TokenSigner("other").mint(CALL, 1e12)])
async def test_a_token_that_is_not_ours_hangs_up(phone: Phone, calls: Calls, token: str) -> None:
    status, verbs = await phone.fetch(f"{PUBLIC}/{phone.provider.value}/{token}/resume")
    assert (status, tags(verbs), calls.asked) == (200, HANG_UP, [])


@pytest.mark.parametrize("provider", [Provider.TWILIO, Provider.PLIVO])
@pytest.mark.parametrize("other", ["CA2", ""])
async def test_another_carrier_call_is_hung_up(phone: Phone, calls: Calls, other: str) -> None:
    calls.verdict = ResumeVerdict.STREAM
    token = SIGNER.mint(CALL, time.time() + 90)
    _, verbs = await phone.fetch(f"{PUBLIC}/{phone.provider.value}/{token}/resume", "POST", **{phone.call_field: other})
    assert (tags(verbs), calls.asked) == (HANG_UP, [])


@pytest.mark.parametrize("provider", [Provider.TELNYX])
async def test_telnyxs_stream_may_have_taught_us_another_id(phone: Phone, calls: Calls) -> None:
    calls.verdict = ResumeVerdict.STREAM
    assert stream_of((await phone.ask(CallSid="v3:another"))[1])[1] == 2


@every
async def test_a_token_of_another_carrier_is_hung_up(phone: Phone, calls: Calls) -> None:
    calls.begin(next(name for name in Provider if name is not phone.provider))
    calls.verdict = ResumeVerdict.STREAM
    assert (tags((await phone.ask())[1]), calls.asked) == (HANG_UP, [])


@every
async def test_an_unknown_call_is_hung_up(phone: Phone, calls: Calls) -> None:
    calls.known = None
    assert (tags((await phone.ask())[1]), calls.asked) == (HANG_UP, [])


@every
@pytest.mark.parametrize("error", [TokenExpired("the call has ended"), RuntimeError("a mistake of ours")])
async def test_after_an_error_the_phone_is_hung_up(phone: Phone, calls: Calls, error: Exception) -> None:
    calls.error = error
    status, verbs = await phone.ask()
    assert (status, tags(verbs)) == (200, HANG_UP)


@every
async def test_a_phone_that_has_hung_up_ends_the_call(phone: Phone, calls: Calls) -> None:
    _, verbs = await phone.ask(CallStatus="completed")
    assert (tags(verbs), calls.asked, calls.said) == (HANG_UP, [], [(CALL, "completed")])


@every
@pytest.mark.parametrize("error", [StoreError("no store"), Unavailable("draining")])
async def test_without_the_store_the_phone_waits_a_moment_five_times(
    phone: Phone, calls: Calls, error: ConnectorError
) -> None:
    calls.error = error
    _, verbs = await phone.ask()
    asked = 1
    while tags(verbs) != HANG_UP:
        pause, back = verbs
        assert pause.get("length") == "1"
        assert back.text
        assert back.text.startswith(PUBLIC)
        _, verbs = await phone.fetch(back.text)
        asked += 1
    assert asked == TRIES


@every
async def test_the_store_may_come_back_meanwhile(phone: Phone, calls: Calls) -> None:
    calls.error = StoreError("no store")
    _, (_, back) = await phone.ask()
    calls.error, calls.verdict = None, ResumeVerdict.STREAM
    assert back.text
    assert stream_of((await phone.fetch(back.text))[1])[1] == 2


@every
@pytest.mark.parametrize("tried", ["4", "5", "-1", "x", "", "999999999999999999999", "²"])
async def test_a_counter_of_somebody_elses_ends_the_waiting(phone: Phone, calls: Calls, tried: str) -> None:
    calls.error = StoreError("no store")
    _, verbs = await phone.ask(query=f"?{urlencode({'tried': tried})}")
    assert tags(verbs) == HANG_UP


@every
async def test_a_store_that_does_not_answer_is_not_waited_for(
    phone: Phone, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_routes, "PATIENCE", 0.01)
    calls.hangs = True
    assert len((await phone.ask())[1]) == 2
