"""What a carrier's account has, as its REST API tells it: whether the credentials are good, and where each number's
calls go. For `connector doctor`; nothing is changed.

https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource,
https://developers.telnyx.com/api-reference/phone-number-configurations/list-phone-numbers,
https://developers.telnyx.com/api-reference/texml-applications/list-all-texml-applications,
https://www.plivo.com/docs/numbers/api/account-phone-number
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from connector.model import REST_SETTINGS, Provider
from connector.telephony.http import CarrierApi

MOST = 20
"""Numbers that are looked at; the first ones of an account."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and the URL that its calls are announced at; "" where the carrier does not say one."""

    number: str
    voice_url: str


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    numbers: Sequence[Number]


async def look_at(provider: Provider, account_id: str, secret: str, api_url: str) -> Account:
    """Ask the carrier. Raises ConnectorError: Internal where the credentials are refused."""
    basic = aiohttp.encode_basic_auth(account_id, secret)
    authorization = f"Bearer {secret}" if provider is Provider.TELNYX else basic
    api = CarrierApi(provider.value.capitalize(), api_url, authorization, REST_SETTINGS[provider])
    await api.start()
    try:
        match provider:
            case Provider.TWILIO:
                return await _twilio(api, quote(account_id, safe=""))
            case Provider.TELNYX:
                return await _telnyx(api)
            case Provider.PLIVO:
                return await _plivo(api, quote(account_id, safe=""))
    finally:
        await api.close()


async def _twilio(api: CarrierApi, account_id: str) -> Account:
    base = f"/2010-04-01/Accounts/{account_id}"
    account = (await api.send("GET", f"{base}.json")).body
    numbers = (await api.send("GET", f"{base}/IncomingPhoneNumbers.json?PageSize={MOST}")).body
    return Account(
        f"{_text(account, 'friendly_name')} ({_text(account, 'status')})",
        [
            Number(_text(each, "phone_number"), _text(each, "voice_url"))
            for each in _list(numbers, "incoming_phone_numbers")
        ],
    )


async def _telnyx(api: CarrierApi) -> Account:
    numbers = (await api.send("GET", f"/v2/phone_numbers?page[size]={MOST}")).body
    applications = (await api.send("GET", f"/v2/texml_applications?page[size]={MOST}")).body
    urls = {_text(each, "id"): _text(each, "voice_url") for each in _list(applications, "data")}
    return Account(
        "the account of TELNYX_API_KEY",
        [
            Number(_text(each, "phone_number"), urls.get(_text(each, "connection_id"), ""))
            for each in _list(numbers, "data")
        ],
    )


async def _plivo(api: CarrierApi, account_id: str) -> Account:
    base = f"/v1/Account/{account_id}"
    account = (await api.send("GET", f"{base}/")).body
    numbers = (await api.send("GET", f"{base}/Number/?limit={MOST}")).body
    applications = (await api.send("GET", f"{base}/Application/?limit={MOST}")).body
    urls = {_text(each, "resource_uri"): _text(each, "answer_url") for each in _list(applications, "objects")}
    return Account(
        _text(account, "name"),
        [
            Number(f"+{_text(each, 'number').removeprefix('+')}", urls.get(_text(each, "application"), ""))
            for each in _list(numbers, "objects")
        ],
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return str(value) if isinstance(value, str | int) else ""


def _list(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = body.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
