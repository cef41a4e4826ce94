"""TwiML with which Twilio dials a SIP address, and Twilio's reports on such a dial. Pure.

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
"""Characters. Twilio accepts SIP URIs shorter than 255 characters."""
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
    """URL at which Twilio reports the result of the dial and gets the next document."""
    progress: str = ""
    """URL at which Twilio reports that the other side answered."""
    caller_id: str = ""
    """The caller id shown to the other side; empty: the caller's number."""
    time_limit: int = 0
    """Seconds; 0: Twilio's default of four hours."""


def sip_uri(number: str, endpoint: str) -> str:
    """Returns `sip:+1555…@endpoint`; `endpoint` as in the setting. ValueError for an address that Twilio rejects."""
    if not SUBSCRIBER.fullmatch(number):
        raise ValueError(f"{number!r} is not a phone number in E.164 form")
    uri = f"sip:{number}@{endpoint}"
    if len(uri) > LONGEST_URI:
        raise ValueError(f"the SIP address is longer than {LONGEST_URI} characters")
    return uri


def check_username(value: str) -> None:
    """Raises ValueError for a user name that TwiML, SIP or a TwiML Bin would not pass on unchanged."""
    _check_credential(value, '"\\:')


def check_password(value: str) -> None:
    """Raises ValueError like `check_username`; a colon is allowed."""
    _check_credential(value, '"\\')


def _check_credential(value: str, forbidden: str) -> None:
    if not 1 <= len(value) <= LONGEST_CREDENTIAL or not all("!" <= char <= "~" for char in value):
        raise ValueError(f"must be 1 to {LONGEST_CREDENTIAL} printable ASCII characters without spaces")
    if any(char in value for char in forbidden) or "{{" in value:
        # Quotes and backslashes are special in a digest header; a TwiML Bin replaces text in double braces.
        raise ValueError(f"must contain none of {' '.join(forbidden)} and no {{{{")


def valid_caller_id(text: str) -> bool:
    """Whether Twilio accepts this as the caller ID of a SIP dial."""
    return _CALLER_ID.fullmatch(text) is not None


def twilio_dial(dial: SipDial) -> str:
    """Returns TwiML, indented for pasting into Twilio's console."""
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
    """The result of a dial."""

    status: str
    """completed, answered, busy, no-answer, failed or canceled."""
    sip_code: str
    """SIP status code of the other side's last response; empty if there was none."""
    seconds: float
    """Duration of the connection."""

    @property
    def talked(self) -> bool:
        """Whether the other side answered."""
        return self.status in _TALKED


def sip_dial_over(fields: Mapping[str, str]) -> SipDialOver | None:
    """Reads a request to the action URL; None if it does not report a dial."""
    status, seconds = fields.get("DialCallStatus", ""), fields.get("DialCallDuration", "")
    if not status:
        return None
    length = float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
    return SipDialOver(status, fields.get("DialSipResponseCode", "")[:3], length)


def _given(attributes: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}
