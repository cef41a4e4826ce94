"""Conferences of several accounts: each is asked for, and changed, in its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.errors import NotFound
from connector.model.provider import Provider
from connector.telephony.twilio import TwilioAccounts, TwilioCalls
from connector.telephony.twilio_conferences import SipGuest, TwilioConferences
from tests.carriers import CARRIERS

MAIN, OTHER = "AC" + "1" * 32, "AC" + "2" * 32
CONFERENCE = "CF" + "0" * 32
GUEST = SipGuest("sip:+15550001111@sip.example.com", "+15550001111", "user", "password")


class Twilio:
    """Has one conference, of the other account."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.labels: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        account, conference = request.match_info["account"], request.match_info["conference"]
        label = request.match_info.get("label", "")
        self.asked.append((request.method, account))
        is_there = (account, conference) == (OTHER, CONFERENCE) and (not label or label in self.labels)
        if not is_there:
            return web.json_response({"code": 20404, "message": "not found", "status": 404}, status=404)
        if request.method == "DELETE":
            self.labels.remove(label)
            return web.Response(status=204)
        if request.method == "POST":
            self.labels.append(str((await request.post())["Label"]))
        return web.json_response({"call_sid": "CA1"}, status=201 if request.method == "POST" else 200)


@pytest.fixture
def twilio() -> Twilio:
    return Twilio()


@pytest.fixture
async def conferences(twilio: Twilio) -> AsyncIterator[TwilioConferences]:
    app = web.Application()
    path = "/2010-04-01/Accounts/{account}/Conferences/{conference}/Participants"
    app.router.add_route("*", path + ".json", twilio.handle)
    app.router.add_route("*", path + "/{label}.json", twilio.handle)
    accounts = CarrierAccounts(
        CARRIERS[Provider.TWILIO].account_rules,
        [CarrierAccount(account, ("token",), ("token",)) for account in (MAIN, OTHER)],
    )
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        calls = TwilioAccounts(accounts, lambda account, token: TwilioCalls(account, token, url))
        await calls.start()
        yield TwilioConferences(calls)
        await calls.close()


async def test_where_the_account_is_told_no_other_is_asked(conferences: TwilioConferences, twilio: Twilio) -> None:
    assert await conferences.add(CONFERENCE, "livekit", GUEST, OTHER) == ("CA1", True)
    assert await conferences.add(CONFERENCE, "livekit", GUEST, OTHER) == ("CA1", False)
    assert await conferences.remove(CONFERENCE, "livekit", OTHER)
    assert {account for _, account in twilio.asked} == {OTHER}


async def test_where_it_is_not_told_each_is_asked_the_default_first(
    conferences: TwilioConferences, twilio: Twilio
) -> None:
    assert await conferences.add(CONFERENCE, "livekit", GUEST) == ("CA1", True)
    assert twilio.asked[0] == ("GET", MAIN)
    assert await conferences.find(CONFERENCE, "livekit") == "CA1"
    assert await conferences.remove(CONFERENCE, "livekit")
    assert not await conferences.remove(CONFERENCE, "livekit")


async def test_a_conference_that_no_account_has_is_not_found(conferences: TwilioConferences) -> None:
    with pytest.raises(NotFound, match="no conference"):
        await conferences.add("CF" + "9" * 32, "livekit", GUEST)
    with pytest.raises(NotFound, match="no conference"):
        await conferences.add(CONFERENCE, "livekit", GUEST, MAIN)


async def test_an_account_that_is_not_configured_is_served_by_the_default_as_for_calls(
    conferences: TwilioConferences, twilio: Twilio
) -> None:
    sub = "AC" + "3" * 32
    with pytest.raises(NotFound):
        await conferences.add(CONFERENCE, "livekit", GUEST, sub)
    assert {account for _, account in twilio.asked} == {sub}
