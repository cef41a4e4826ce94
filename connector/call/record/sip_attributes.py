"""The caller's attributes under the names that LiveKit SIP gives them, for agents that were written for SIP.

Names and words are those of livekit/sip and livekit/protocol: `sip.phoneNumber` is the number outside, whoever called,
`sip.trunkPhoneNumber` the one on our side; `sip.callStatus` is `dialing`, `ringing`, `automation`, `active`, `hangup`.
"""

from __future__ import annotations

from collections.abc import Mapping

from connector.model import CallRecord, Direction

STATUSES = {"ringing": "dialing"}
"""`connector.callStatus` to SIP's word where that is another: an outbound call is `dialing` until it is answered."""


def sip_attributes(record: CallRecord, status: str) -> dict[str, str]:
    """What is known of the call; a number that is hidden is in no record."""
    phone, ours = phone_and_ours(record)
    known = {
        "sip.callID": record.call_id,
        "sip.callIDFull": record.carrier_call_id,
        "sip.callStatus": STATUSES.get(status, status),
        "sip.phoneNumber": phone,
        "sip.trunkPhoneNumber": ours,
        "sip.trunkID": record.connector_id,
        "sip.ruleID": record.rule_id,
    }
    return {name: value for name, value in known.items() if value}


def of_carrier(attributes: Mapping[str, str]) -> dict[str, str]:
    """The carrier's ids, as LiveKit SIP has Twilio's: `sip.twilio.callSid`. Stream parameters have no counterpart."""
    return {f"sip.{name}": value for name, value in attributes.items() if ".param." not in name}


def phone_and_ours(record: CallRecord) -> tuple[str, str]:
    """The number of the person on the phone, and the one on our side."""
    if record.direction is Direction.INBOUND:
        return record.from_number, record.to_number
    return record.to_number, record.from_number
