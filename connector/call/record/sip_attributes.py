"""The caller's attributes under the names of LiveKit SIP, for agents that were written for SIP.

Names and values come from livekit/sip and livekit/protocol. In both call directions `sip.phoneNumber` is the number of
the phone and `sip.trunkPhoneNumber` our number. `sip.callStatus` is `dialing`, `ringing`, `automation`, `active` or
`hangup`.
"""

from __future__ import annotations

from collections.abc import Mapping

from connector.model.call import CallRecord, Direction

STATUSES = {"ringing": "dialing"}
"""Maps `connector.callStatus` to SIP's value where they differ: an outbound call is `dialing` until it is answered."""


def sip_attributes(record: CallRecord, status: str) -> dict[str, str]:
    """The `sip.` attributes of a call, without empty ones. `record` never contains a hidden number."""
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
    """The carrier's ids with LiveKit SIP's prefix, such as `sip.twilio.callSid`. Stream parameters have no counterpart
    in LiveKit SIP and are left out."""
    return {f"sip.{name}": value for name, value in attributes.items() if ".param." not in name}


def phone_and_ours(record: CallRecord) -> tuple[str, str]:
    """The number of the phone, and our number."""
    if record.direction is Direction.INBOUND:
        return record.from_number, record.to_number
    return record.to_number, record.from_number
