"""Findings of `connector doctor` from the REST APIs of the carriers: credentials, and the URL of each number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

from connector.accounts import CarrierAccount
from connector.carrier_table import TABLE, Entry
from connector.carriers.carrier import Carrier
from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError, Unavailable
from connector.logs import mask_phone
from connector.storage.stores import opened
from connector.telephony.inventory import MOST, Number
from connector.tokens import WebhookKeys

HOOKS = "/v2/hooks/"


async def account_findings(settings: Settings) -> list[Finding]:
    """Findings for every account with REST credentials. The requests change nothing."""
    accounts = [
        (entry, account) for entry in TABLE for account in entry.carrier.of(settings).accounts(settings).with_api
    ]
    asked = await asyncio.gather(*(_account(settings, *each) for each in accounts))
    return [finding for findings in asked for finding in findings]


async def _account(settings: Settings, entry: Entry, account: CarrierAccount) -> list[Finding]:
    subject = f"{entry.carrier.title} account"
    try:
        found = await entry.rest_module.look_at(settings, account)
    except ConnectorError as error:
        mend = (
            "check that this machine reaches the carrier's REST API: name resolution, firewall, proxy"
            if isinstance(error, Unavailable)
            else "copy the credentials from the carrier's console again"
        )
        return [Finding("problem", subject, error.message, mend)]
    good = Finding("ok", subject, f"{found.name}: the credentials are valid, {_counted(found.numbers)}")
    return [good, *[await _number(settings, entry.carrier, number) for number in found.numbers]]


def _counted(numbers: Sequence[Number]) -> str:
    count = len(numbers)
    return f"{count} numbers or more" if count >= MOST else f"{count} number{'' if count == 1 else 's'}"


async def _number(settings: Settings, carrier: type[Carrier], number: Number) -> Finding:
    subject, shown = f"{carrier.title} number", mask_phone(number.number)
    url = urlsplit(number.voice_url)
    if not number.voice_url:
        return Finding("ok", subject, f"{shown} has no voice URL, so its calls do not reach this connector")
    if HOOKS not in url.path:
        return Finding(
            "ok", subject, f"{shown} points to {url.scheme}://{url.netloc}{url.path}, which is not a connector's URL"
        )
    where = f"{url.scheme}://{url.netloc}"
    ours = {settings.public_origin, *settings.regions.values()}
    if not any(number.voice_url.startswith(f"{origin}{HOOKS}") for origin in ours):
        text = f"{shown} points to a connector's URL at {where}, which is not CONNECTOR_PUBLIC_URL"
        return Finding("warning", subject, text, "correct one of the two")
    named, _, key = url.path.partition(HOOKS)[2].partition("/")
    if named != carrier.provider.value:
        text = f"{shown} points to the URL of a connector for {named}"
        return Finding(
            "problem",
            subject,
            text,
            f"create a connector for {carrier.provider.value}, and enter its URL at the number",
        )
    try:
        known = await _has_connector(settings, key)
    except ConnectorError:
        return Finding("ok", subject, f"{shown} points to a connector's URL here")
    if known:
        return Finding("ok", subject, f"{shown} points to a connector of this store")
    text = f"{shown} points to a connector's URL here, which no connector in {settings.store_place} has"
    return Finding("problem", subject, text, "enter the URL that `connector connectors list` prints at the number")


async def _has_connector(settings: Settings, key: str) -> bool:
    if settings.store_file is not None and not settings.store_file.exists():
        return False
    async with opened(settings) as store:
        return await store.connectors.find(f"key:{WebhookKeys.hash(key)}") is not None
