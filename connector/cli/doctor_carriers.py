"""What `connector doctor` says of the carriers in use: what they sign, and what their REST APIs are needed for."""

from __future__ import annotations

from collections.abc import Collection

from connector.api.signed import SETTINGS
from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.model import Provider
from connector.storage.stores import opened

_NAMES = {Provider.TWILIO: "Twilio", Provider.TELNYX: "Telnyx", Provider.PLIVO: "Plivo"}
_WITHOUT_SIGNATURE = "are not checked: anyone who learns a connect_url or a webhook URL can use it"
_WITHOUT_API = {
    Provider.TELNYX: ("TELNYX_API_KEY", "a call that the room ends stays up, in silence, until the phone hangs up"),
    Provider.PLIVO: ("PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN", "calls cannot be transferred"),
}


async def carrier_findings(settings: Settings) -> list[Finding]:
    """Of each carrier that has a connector in the store or a credential in the settings; of Twilio where none has."""
    return check(settings, await _with_connectors(settings))


async def _with_connectors(settings: Settings) -> set[Provider]:
    try:
        async with opened(settings.store) as store:
            return {connector.provider for connector in await store.connectors.list()}
    except ConnectorError:
        return set()  # The store's own finding says why.


def check(settings: Settings, with_connectors: Collection[Provider]) -> list[Finding]:
    """See `carrier_findings`."""
    credentials = {
        Provider.TWILIO: bool(settings.twilio_account_sid or settings.twilio_auth_token.get_secret_value()),
        Provider.TELNYX: bool(settings.telnyx_public_key or settings.telnyx_api_key.get_secret_value()),
        Provider.PLIVO: bool(settings.plivo_auth_id or settings.plivo_auth_token.get_secret_value()),
    }
    used = [provider for provider in Provider if provider in with_connectors or credentials[provider]]
    return [finding for provider in used or [Provider.TWILIO] for finding in _of(provider, settings)]


def _of(provider: Provider, settings: Settings) -> list[Finding]:
    plivo_token = settings.plivo_auth_token.get_secret_value()
    signs = {
        Provider.TWILIO: settings.twilio_auth_token.get_secret_value(),
        Provider.TELNYX: settings.telnyx_public_key,
        Provider.PLIVO: plivo_token,
    }
    subject = f"{_NAMES[provider]} signatures"
    findings = [
        Finding("ok", subject, "are checked")
        if signs[provider]
        else Finding("warning", subject, _WITHOUT_SIGNATURE, f"set {SETTINGS[provider]}")
    ]
    has_api = {
        Provider.TELNYX: settings.telnyx_api_key.get_secret_value(),
        Provider.PLIVO: settings.plivo_auth_id and plivo_token,
    }
    if provider in _WITHOUT_API and not has_api[provider]:
        names, text = _WITHOUT_API[provider]
        findings.append(Finding("warning", f"{_NAMES[provider]} REST API", text, f"set {names}"))
    return findings
