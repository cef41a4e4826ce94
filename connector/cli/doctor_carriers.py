"""What `connector doctor` says of the carriers in use: what they sign, and what their REST APIs are needed for."""

from __future__ import annotations

from collections.abc import Collection

from connector.accounts import SIGNING_SETTINGS
from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.model import Provider
from connector.storage.stores import opened

_NAMES = {Provider.TWILIO: "Twilio", Provider.TELNYX: "Telnyx", Provider.PLIVO: "Plivo"}
_WITHOUT_SIGNATURE = "cannot be checked: connectors are refused, and anyone who learns a connect_url can use it"
_WITHOUT_API = {
    Provider.TELNYX: ("TELNYX_API_KEY", "a call that the room ends stays up, in silence, until the phone hangs up"),
    Provider.PLIVO: (
        "PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN",
        "a phone may stay on a silent line, and calls cannot be transferred",
    ),
}


async def carrier_findings(settings: Settings) -> list[Finding]:
    """Of each carrier that has a connector in the store or a credential in the settings; of Twilio where none has."""
    return check(settings, await _with_connectors(settings))


async def _with_connectors(settings: Settings) -> set[Provider]:
    if settings.store_file is not None and not settings.store_file.exists():
        return set()
    try:
        async with opened(settings) as store:
            return {connector.provider for connector in await store.connectors.list()}
    except ConnectorError:
        return set()  # The store's own finding says why.


def check(settings: Settings, with_connectors: Collection[Provider]) -> list[Finding]:
    """See `carrier_findings`."""
    credentials = {provider: bool(settings.accounts(provider).all) for provider in Provider} | {
        Provider.TWILIO: bool(settings.twilio_account_sid or settings.accounts(Provider.TWILIO).all),
    }
    used = [provider for provider in Provider if provider in with_connectors or credentials[provider]]
    return [finding for provider in used or [Provider.TWILIO] for finding in _of(provider, settings)]


def _of(provider: Provider, settings: Settings) -> list[Finding]:
    accounts = settings.accounts(provider)
    subject = f"{_NAMES[provider]} signatures"
    findings = [
        Finding("ok", subject, "are checked")
        if accounts.signs
        else Finding("warning", subject, _WITHOUT_SIGNATURE, f"set {SIGNING_SETTINGS[provider]}")
    ]
    if provider in _WITHOUT_API and not accounts.with_api:
        names, text = _WITHOUT_API[provider]
        findings.append(Finding("warning", f"{_NAMES[provider]} REST API", text, f"set {names}"))
    return findings
