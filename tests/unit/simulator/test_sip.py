"""The carrier's INVITE against a SIP stack that is not ours: it signs in, is refused, rings, talks, hangs up."""

from __future__ import annotations

import asyncio

import pytest

from carrier_simulator import CallStatus
from carrier_simulator.faults import Fault, Refused
from carrier_simulator.sip import SipClient, SipTimers
from carrier_simulator.sip.digest import ChallengeUnusable, answer, parse_parameters
from carrier_simulator.sip.message import SipMalformed, parse, parse_uri
from carrier_simulator.sip_dialling import status_of
from tests.sip_endpoint import SipEndpoint

NUMBER = "+15550001111"
CALLER = "+15552223333"
KNOWN = {NUMBER: ("connector", "right-password")}


@pytest.fixture
async def client():  # type: ignore[no-untyped-def]
    client = SipClient(SipTimers(t1=0.05, t2=0.2, transaction=0.6))
    yield client
    await client.close()


@pytest.mark.parametrize(
    "manners",
    [
        {},
        {"qop": "auth"},
        {"algorithm": "SHA-256", "qop": "auth"},
        {"www": True},
        {"www": True, "qop": "auth"},
    ],
    ids=str,
)
async def test_it_signs_in_and_talks(client: SipClient, manners: dict[str, object]) -> None:
    async with SipEndpoint(KNOWN, **manners) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, *KNOWN[NUMBER])
        outcome = await leg.dial()
        assert (outcome.status, outcome.fault) == (200, "")
        assert leg.ringing.has_come()
        first, second = endpoint.invites
        assert first.call_id == second.call_id
        assert f"<sip:{CALLER}@" in (second.get_header("from") or "")
        (call,) = endpoint.calls
        await leg.hang_up()
        await asyncio.wait_for(endpoint.hung_up.wait(), 5)
        assert [message.method for message in leg.sent] == ["INVITE", "ACK", "INVITE", "ACK", "BYE"]
        assert not call.dialog.state.name.startswith("CONF")


@pytest.mark.parametrize(("user", "password"), [("connector", "wrong-password"), ("somebody", "right-password")])
async def test_wrong_credentials_are_refused(client: SipClient, user: str, password: str) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, user, password)
        outcome = await leg.dial()
        assert outcome.status == 401
        assert status_of(outcome) is CallStatus.FAILED
        assert endpoint.calls == []
        assert [message.method for message in leg.sent] == ["INVITE", "ACK", "INVITE", "ACK"]


async def test_without_credentials_the_challenge_stands(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, "", "")
        assert (await leg.dial()).status == 407


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(486, CallStatus.BUSY), (600, CallStatus.BUSY), (480, CallStatus.NO_ANSWER), (503, CallStatus.FAILED)],
)
async def test_what_a_refusal_means(client: SipClient, status: int, meaning: CallStatus) -> None:
    async with SipEndpoint({NUMBER: ("", "")}, status=status) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, "", "")
        outcome = await leg.dial()
        assert (outcome.status, status_of(outcome)) == (status, meaning)


async def test_a_number_without_a_trunk(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        leg = await client.open(f"sip:+15559999999@{endpoint.host}", CALLER, *KNOWN[NUMBER])
        assert (await leg.dial()).status == 404


async def test_an_answer_that_refuses_the_audio_is_no_call(client: SipClient) -> None:
    async with SipEndpoint(KNOWN, refuses_audio=True) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, *KNOWN[NUMBER])
        outcome = await leg.dial()
        assert "refuses the audio" in outcome.fault
        assert status_of(outcome) is CallStatus.FAILED
        assert not leg.answered.has_come()
        await leg.hang_up()
        await asyncio.wait_for(endpoint.hung_up.wait(), 5)


async def test_a_call_that_still_rings_is_cancelled(client: SipClient) -> None:
    async with SipEndpoint(KNOWN, rings_for=float("inf")) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, *KNOWN[NUMBER])
        dialling = asyncio.create_task(leg.dial())
        await leg.ringing.wait()
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)
        await leg.cancel()
        await asyncio.wait_for(endpoint.canceled.wait(), 5)
        assert [message.method for message in leg.sent][-2:] == ["CANCEL", "ACK"]
        assert leg.received[-1].status == 487


async def test_they_hang_up(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}", CALLER, *KNOWN[NUMBER])
        await leg.dial()
        endpoint.hang_up()
        await leg.ended.wait()
        assert leg.hung_up_by_them
        await leg.hang_up()
        assert "BYE" not in [message.method for message in leg.sent]


async def test_nobody_there_is_asked_again_and_then_given_up(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        nowhere = endpoint.host
    leg = await client.open(f"sip:{NUMBER}@{nowhere}", CALLER, *KNOWN[NUMBER])
    outcome = await leg.dial()
    assert (outcome.status, status_of(outcome)) == (408, CallStatus.NO_ANSWER)
    assert [message.method for message in leg.sent].count("INVITE") > 2


async def test_a_host_of_its_own_name_service(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        host, port = endpoint.host.split(":")
        client.hosts["sip.example.com"] = (host, int(port))
        leg = await client.open(f"sip:{NUMBER}@sip.example.com", CALLER, *KNOWN[NUMBER])
        assert (await leg.dial()).status == 200
        await leg.hang_up()


async def test_headers_of_the_address_travel_in_the_invite(client: SipClient) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        leg = await client.open(f"sip:{NUMBER}@{endpoint.host}?X-Call=a%20b", CALLER, *KNOWN[NUMBER])
        await leg.dial()
        assert endpoint.calls[0].x_headers == {"X-Call": "a b"}
        await leg.hang_up()


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("sip:", Fault.SIP_ADDRESS),
        ("sip:a@b@c", Fault.SIP_ADDRESS),
        ("sip:a@host:99999", Fault.SIP_ADDRESS),
        ("sip:a@127.0.0.1;transport=tls", Fault.SIP_UNREACHABLE),
        ("sips:a@127.0.0.1", Fault.SIP_UNREACHABLE),
        ("sip:a@no-such-host.invalid", Fault.SIP_UNREACHABLE),
    ],
)
async def test_an_address_that_cannot_be_called(client: SipClient, uri: str, fault: Fault) -> None:
    with pytest.raises(Refused) as caught:
        await client.open(uri, CALLER, "", "")
    assert caught.value.error.code is fault


def test_the_example_of_rfc_2617() -> None:
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    said = answer(challenge, "Mufasa", "Circle Of Life", "GET", "/dir/index.html", "0a4f113b")
    fields = parse_parameters(said)
    assert fields["response"] == "6629fae49393a05397450978507c4ef1"
    assert fields["opaque"] == "5ccc069c403ebaf9f0171e9517f40e41"
    assert "qop=auth, nc=00000001" in said


@pytest.mark.parametrize(
    "challenge",
    ['Basic realm="x"', 'Digest realm="x"', 'Digest nonce="1", algorithm=MD5-sess', 'Digest nonce="1", qop="auth-int"'],
)
def test_a_challenge_that_cannot_be_answered(challenge: str) -> None:
    with pytest.raises(ChallengeUnusable):
        answer(challenge, "u", "p", "INVITE", "sip:a@b", "c")


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\r\n\r\n",
        b"INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"SIP/2.0 200 OK\r\nnocolon\r\n\r\n",
        b"\xff" * 20,
    ],
)
def test_what_is_no_sip(datagram: bytes) -> None:
    with pytest.raises(SipMalformed):
        parse(datagram)


def test_compact_and_folded_headers() -> None:
    message = parse(
        b"SIP/2.0 180 Ringing\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\n"
        b"t: <sip:c@d>\r\n ;tag=2\r\ni: x\r\nCSeq: 1 INVITE\r\nl: 0\r\n\r\nignored"
    )
    assert (message.status, message.method, message.branch, message.to_tag) == (180, "INVITE", "z9hG4bK1", "2")
    assert message.body == b""


def test_addresses() -> None:
    uri = parse_uri("sip:+1555@[::1]:5070;transport=udp?X-A=1")
    assert (uri.user, uri.host, uri.port, uri.parameters, uri.headers) == (
        "+1555",
        "::1",
        5070,
        {"transport": "udp"},
        "X-A=1",
    )
