"""TwiML that has Twilio dial a SIP address, and what Twilio tells of such a dial. Pure.

https://www.twilio.com/docs/voice/twiml/dial and https://www.twilio.com/docs/voice/twiml/sip
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from connector.carriers.xml import document
from connector.numbers import SUBSCRIBER

LONGEST_URI = 254
"""Twilio takes a SIP URI of under 255 characters."""
LONGEST_CREDENTIAL = 128
_TALKED = frozenset({"completed", "answered"})
_CALLER_ID = re.compile(r"[A-Za-z0-9+_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class SipDial:
    """One `<Dial><Sip>`. Empty attributes are left out."""

    uri: str
    username: str
    password: str = field(repr=False)
    action: str = ""
    """Where Twilio reports how the dial ended, and gets the next document."""
    progress: str = ""
    """Where Twilio reports that the other side answered."""
    caller_id: str = ""
    """What the other side sees as the caller; empty: the caller's number."""
    time_limit: int = 0
    """Seconds; 0: Twilio's own four hours."""


def sip_uri(number: str, endpoint: str) -> str:
    """`sip:+1555…@endpoint`; `endpoint` as the setting has it. ValueError for what Twilio would not take."""
    if not SUBSCRIBER.fullmatch(number):
        raise ValueError(f"{number!r} is not a phone number in E.164 form")
    uri = f"sip:{number}@{endpoint}"
    if len(uri) > LONGEST_URI:
        raise ValueError(f"the SIP address is longer than {LONGEST_URI} characters")
    return uri


def check_username(value: str) -> None:
    """ValueError for one that would not come through TwiML, SIP or a TwiML Bin unharmed."""
    _check_credential(value, '"\\:')


def check_password(value: str) -> None:
    """As `check_username`."""
    _check_credential(value, '"\\')


def _check_credential(value: str, forbidden: str) -> None:
    if not 1 <= len(value) <= LONGEST_CREDENTIAL or not all("!" <= char <= "~" for char in value):
        raise ValueError(f"must be 1 to {LONGEST_CREDENTIAL} printable ASCII characters without spaces")
    if any(char in value for char in forbidden) or "{{" in value:
        # A digest header quotes them; a TwiML Bin fills in what stands in double braces.
        raise ValueError(f"must contain none of {' '.join(forbidden)} and no {{{{")


def valid_caller_id(text: str) -> bool:
    """Whether Twilio takes this as the caller ID of a SIP dial."""
    return _CALLER_ID.fullmatch(text) is not None


def twilio_dial(dial: SipDial) -> str:
    """TwiML, indented as a person would paste it."""
    response = ElementTree.Element("Response")
    options = {"action": dial.action, "method": "POST" if dial.action else "", "callerId": dial.caller_id}
    options["timeLimit"] = str(dial.time_limit) if dial.time_limit else ""
    verb = ElementTree.SubElement(response, "Dial", _given(options))
    attributes = {"username": dial.username, "password": dial.password, "statusCallback": dial.progress}
    attributes["statusCallbackEvent"] = "answered" if dial.progress else ""
    ElementTree.SubElement(verb, "Sip", _given(attributes)).text = dial.uri
    return document(response)


@dataclass(frozen=True, slots=True)
class SipDialOver:
    """How a dial ended."""

    status: str
    """completed, answered, busy, no-answer, failed or canceled."""
    sip_code: str
    """Of the other side's last answer; empty where there was none."""
    seconds: float
    """Of the talk."""

    @property
    def talked(self) -> bool:
        """Whether somebody picked up."""
        return self.status in _TALKED


def sip_dial_over(fields: Mapping[str, str]) -> SipDialOver | None:
    """What a request to the action URL tells; None when it tells of no dial."""
    status, seconds = fields.get("DialCallStatus", ""), fields.get("DialCallDuration", "")
    if not status:
        return None
    length = float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
    return SipDialOver(status, fields.get("DialSipResponseCode", "")[:3], length)


def _given(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}
