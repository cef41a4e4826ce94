"""Findings of `connector doctor` about LiveKit SIP, if it is configured."""

from __future__ import annotations

from collections.abc import Sequence

from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.livekit_api import LiveKitApi
from connector.sip import plan
from connector.sip.provisioning import SipNumberSetup, SipProvisioning
from connector.sip.secrets import SipCredentials, SipSecrets
from connector.storage.stores import opened

SUBJECT = "LiveKit SIP"


async def sip_findings(settings: Settings, livekit: LiveKitApi) -> list[Finding]:
    """Compares LiveKit's trunks with the credentials the connector would use. Empty without CONNECTOR_SIP_ENDPOINT."""
    if not settings.sip_endpoint:
        return []
    try:
        trunks = await SipProvisioning(livekit).list_numbers()
        if settings.store_file is not None and not settings.store_file.exists():
            return compare(trunks, [])
        async with opened(settings) as store:
            known = await SipSecrets(store.sip_numbers, settings.own_secrets).all()
    except ConnectorError as error:
        return [Finding("problem", SUBJECT, error.message, "see the troubleshooting in docs/sip.md")]
    return compare(trunks, known)


def compare(trunks: Sequence[SipNumberSetup], known: Sequence[SipCredentials]) -> list[Finding]:
    """Compares the credentials that LiveKit accepts with those that the connector sends."""
    if not known:
        return [
            Finding(
                "warning",
                SUBJECT,
                "no number is set up, so connectors in mode sip refuse every call",
                "connector sip setup --number +…",
            )
        ]
    findings = []
    for each in known:
        mend = f"connector sip setup --number {each.number}"
        trunk = next((trunk for trunk in trunks if plan.same_number(trunk.number, each.number)), None)
        if trunk is None:
            findings.append(Finding("problem", SUBJECT, f"LiveKit has no inbound trunk for {each.number}", mend))
        elif (trunk.username, trunk.password) != (each.username, each.password):
            text = f"the trunk of {each.number} has other credentials than the connector, so calls are refused with 401"
            findings.append(Finding("problem", SUBJECT, text, mend))
        elif not trunk.rule_id:
            text = (
                f"no dispatch rule of its own serves {each.number}: only calls that a routing rule matches have a room"
            )
            findings.append(Finding("warning", SUBJECT, text, mend))
    return findings or [
        Finding("ok", SUBJECT, "trunks and rules in LiveKit match the connector, for every number that is set up")
    ]
