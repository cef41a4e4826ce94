"""The status callback: only Twilio may report, and only what is news changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from carrier_simulator import Answer, Callback, Document, Outcome
from carrier_simulator.twilio.signing import signed_headers
from connector.app import Connector
from connector.model.call import CallRecord
from connector.model.end_reason import EndReason
from connector.tokens import TokenSigner
from tests.integration.harness import TWILIO_TOKEN, Stage, connect_call, ended, only_session, place, until
from tests.integration.twilio_api import ACCOUNT, SID, TwilioApi, twilio_api

Facts = list[tuple[str, str]]


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioApi]:
    async with twilio_api() as carrier:
        yield carrier


@pytest.fixture
async def connector(stage: Stage, carrier: TwilioApi) -> Connector:
    return await stage.connector(twilio_account_sid=ACCOUNT, twilio_api_url=carrier.url)


@pytest.fixture
async def status_url(stage: Stage, room: str, connector: Connector) -> str:
    """Of a call that rings."""
    url = await connect_call(stage.client(connector), room)
    return url.replace("ws", "http", 1) + "/status"


@pytest.fixture
async def http(stage: Stage) -> aiohttp.ClientSession:
    return await stage.http()


def facts(status: str, number: int | str | None = None) -> Facts:
    numbered = [] if number is None else [("SequenceNumber", str(number))]
    return [("CallSid", SID), ("CallStatus", status), *numbered]


async def report(
    http: aiohttp.ClientSession, url: str, form: Facts, token: str | None = TWILIO_TOKEN, signed: Facts | None = None
) -> int:
    headers = signed_headers(token, url, form if signed is None else signed)
    async with http.post(url, data=aiohttp.FormData(form), headers=headers) as reply:
        await reply.read()
        return reply.status


@pytest.mark.parametrize(
    ("token", "signed"),
    [(None, None), ("another-auth-token", None), (TWILIO_TOKEN, facts("ringing", 1)), (TWILIO_TOKEN, [])],
    ids=["missing", "of another account", "of another form", "of no form"],
)
async def test_a_report_that_twilio_did_not_sign_is_refused(
    http: aiohttp.ClientSession, connector: Connector, status_url: str, token: str | None, signed: Facts | None
) -> None:
    assert await report(http, status_url, facts("busy", 1), token, signed) == 403
    assert only_session(connector).record.carrier_status == ""
    assert await report(http, status_url, facts("busy", 1)) == 204
    await until(lambda: not connector.calls.live())


async def test_without_an_auth_token_nobody_may_report(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector(twilio_auth_token="")
    url = (await connect_call(stage.client(connector), room)).replace("ws", "http", 1) + "/status"
    assert await report(http, url, facts("busy", 1)) == 403
    assert len(connector.calls.live()) == 1


async def test_a_token_that_we_did_not_give_is_refused(
    http: aiohttp.ClientSession, connector: Connector, status_url: str
) -> None:
    origin, _, rest = status_url.partition("/twilio/")
    token = rest.removesuffix("/status")
    foreign = TokenSigner("another-secret-of-thirty-two-bytes-or-more").mint(only_session(connector).call_id, 4e9)
    for bad in (token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1], "nonsense", foreign):
        assert await report(http, f"{origin}/twilio/{bad}/status", facts("busy", 1)) == 404
    assert len(connector.calls.live()) == 1


def _minted(connector: Connector) -> str:
    secret = connector.settings.livekit_api_secret.get_secret_value()
    return TokenSigner(secret).mint("call_0123456789abcdef01234567", 4e9)


async def test_a_report_of_a_call_that_never_was_is_not_found(
    http: aiohttp.ClientSession, connector: Connector
) -> None:
    url = f"{connector.settings.public_origin}/twilio/{_minted(connector)}/status"
    assert await report(http, url, facts("busy", 1)) == 404


async def test_only_post_reports(http: aiohttp.ClientSession, status_url: str) -> None:
    async with http.get(status_url) as reply:
        assert reply.status == 405


async def test_reports_out_of_order_do_not_turn_back(
    http: aiohttp.ClientSession, connector: Connector, status_url: str
) -> None:
    for status, number in (("initiated", 0), ("in-progress", 2), ("ringing", 1), ("in-progress", 2)):
        assert await report(http, status_url, facts(status, number)) == 204
    assert only_session(connector).record.carrier_status == "in-progress"


@pytest.mark.parametrize("number", [None, "", "x", "-1", "1.5", "\u0663"])
async def test_a_report_without_a_number_counts(
    http: aiohttp.ClientSession, connector: Connector, status_url: str, number: str | None
) -> None:
    assert await report(http, status_url, facts("ringing", number)) == 204
    assert only_session(connector).record.carrier_status == "ringing"


async def test_a_status_that_twilio_may_add_one_day_is_kept_and_ends_nothing(
    http: aiohttp.ClientSession, connector: Connector, status_url: str
) -> None:
    assert await report(http, status_url, facts("on-hold", 1)) == 204
    assert only_session(connector).record.carrier_status == "on-hold"
    assert not only_session(connector).finished.is_set()


async def test_after_the_end_only_what_is_final_is_recorded(
    http: aiohttp.ClientSession, connector: Connector, status_url: str
) -> None:
    assert await report(http, status_url, facts("busy", 3)) == 204
    record = await ended(connector)
    for status, number in (("ringing", 1), ("in-progress", 2)):
        assert await report(http, status_url, facts(status, number)) == 204
    assert await connector.store.get_call(record.call_id) == record
    for _ in range(2):
        assert await report(http, status_url, facts("completed", 4)) == 204
        after = await connector.store.get_call(record.call_id)
        assert after is not None
        assert (after.carrier_status, after.end_reason, after.ended_at) == (
            "completed",
            EndReason.BUSY,
            record.ended_at,
        )


async def test_a_report_while_the_call_is_taken_down_is_not_lost(
    http: aiohttp.ClientSession, connector: Connector, status_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twilio reports `completed` in the very moment in which we hang up."""
    saving, saved = asyncio.Event(), asyncio.Event()
    end_call = connector.store.end_call

    async def slow_end(record: CallRecord, expected: CallRecord | None = None) -> bool:
        stands = await end_call(record, expected)
        saving.set()
        await saved.wait()
        return stands

    session = only_session(connector)
    monkeypatch.setattr(connector.store, "end_call", slow_end)
    session.end(EndReason.ENDED_BY_API)
    await saving.wait()
    monkeypatch.undo()
    reporting = asyncio.ensure_future(report(http, status_url, facts("completed", 3)))
    await until(lambda: session.record.carrier_status == "completed")
    saved.set()
    assert await reporting == 204
    record = await ended(connector, session.call_id)
    assert (record.carrier_status, record.end_reason) == ("completed", EndReason.ENDED_BY_API)


async def test_an_answered_call_ends_by_its_stream_and_keeps_the_report(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    twilio = await stage.twilio(account_sid=ACCOUNT)
    connect_url = await connect_call(stage.client(connector), room)
    phone = place(twilio, connect_url)
    await until(lambda: only_session(connector).state == "active")
    url = connect_url.replace("ws", "http", 1) + "/status"
    assert (
        await report(http, url, [("CallSid", phone.sid), ("CallStatus", "completed"), ("SequenceNumber", "3")]) == 204
    )
    assert not only_session(connector).is_ending
    await phone.hangup()
    record = await ended(connector)
    assert (record.end_reason, record.carrier_status) == (EndReason.CARRIER_HANGUP, "completed")


async def test_an_application_that_places_the_call_itself_may_point_its_status_callback_here(
    stage: Stage, room: str, connector: Connector, status_url: str
) -> None:
    """ConnectTwilioCall, then the application's own calls.create: busy ends the hidden participant at once too."""
    twilio = await stage.twilio(account_sid=ACCOUNT)
    events = frozenset({"initiated", "ringing", "answered", "completed"})
    document = Document(status_url.removesuffix("/status"))
    twilio.script("+15551234567", Outcome(Answer.BUSY))
    phone = twilio.dial("+15551234567", "+15557654321", document, callback=Callback(status_url, events=events))
    await phone.finished()
    assert phone.errors == []
    record = await ended(connector)
    assert (record.end_reason, record.carrier_status) == (EndReason.BUSY, "busy")
    assert room not in await stage.rooms()
