"""Findings of `connector doctor` about the carriers in use: signatures, and features that need REST credentials."""

from __future__ import annotations

from collections.abc import Collection

from connector.carrier_table import carriers_of
from connector.carriers.carrier import Carrier
from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.model.provider import Provider
from connector.storage.stores import opened

_WITHOUT_SIGNATURE = "cannot be checked: connectors are refused, and anyone who knows a connect_url can use it"


async def carrier_findings(settings: Settings) -> list[Finding]:
    """Findings about each carrier that has a connector in the store or a credential in the settings; if there is none,
    about the first carrier."""
    return check(settings, await _with_connectors(settings))


async def _with_connectors(settings: Settings) -> set[Provider]:
    if settings.store_file is not None and not settings.store_file.exists():
        return set()
    try:
        async with opened(settings) as store:
            return {connector.provider for connector in await store.connectors.list()}
    except ConnectorError:
        return set()  # `store_findings` reports the reason.


def check(settings: Settings, with_connectors: Collection[Provider]) -> list[Finding]:
    """See `carrier_findings`."""
    carriers = carriers_of(settings)
    used = [carrier for name, carrier in carriers.items() if name in with_connectors or carrier.is_configured(settings)]
    # If none is used, the first of the table: a new set-up starts with it.
    return [finding for carrier in used or [*carriers.values()][:1] for finding in _of(carrier, settings)]


def _of(carrier: Carrier, settings: Settings) -> list[Finding]:
    accounts = carrier.accounts(settings)
    subject = f"{carrier.title} signatures"
    findings = [
        Finding("ok", subject, "are checked")
        if accounts.signs
        else Finding("warning", subject, _WITHOUT_SIGNATURE, f"set {carrier.signing_setting}")
    ]
    if carrier.without_rest and not accounts.with_api:
        mend = f"set {carrier.rest_settings}"
        findings.append(Finding("warning", f"{carrier.title} REST API", carrier.without_rest, mend))
    return findings
