"""The document that has a carrier connect a call with a number, and what the carrier then tells of it. Pure.

https://www.twilio.com/docs/voice/twiml/dial,
https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/dial, https://www.plivo.com/docs/voice/xml/dial
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from connector.carriers.facts import call_facts
from connector.carriers.xml import document
from connector.errors import InvalidArgument
from connector.model import Provider, TransferStatus

MIN_TIMEOUT, MAX_TIMEOUT = 5, 600
_MOST_SECONDS = {Provider.TWILIO: 600, Provider.TELNYX: 120, Provider.PLIVO: 600}
"""Of ringing, that each carrier takes."""
_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
_STATUSES = {
    "completed": TransferStatus.ANSWERED,
    "answered": TransferStatus.ANSWERED,
    "busy": TransferStatus.BUSY,
    "no-answer": TransferStatus.NO_ANSWER,
    "timeout": TransferStatus.NO_ANSWER,
    "failed": TransferStatus.FAILED,
    "canceled": TransferStatus.CANCELED,
    "cancel": TransferStatus.CANCELED,
}
_PROGRESS = {
    "ringing": TransferStatus.RINGING,
    "in-progress": TransferStatus.ANSWERED,
    "answered": TransferStatus.ANSWERED,
    "answer": TransferStatus.ANSWERED,
    "connected": TransferStatus.ANSWERED,
}


@dataclass(frozen=True, slots=True)
class TransferDial:
    """One `<Dial>`. Empty attributes are left out."""

    number: str
    timeout: int
    caller_id: str = ""
    action: str = ""
    """Where the carrier tells how the dial ended, and gets the next document; empty: it hangs up."""
    progress: str = ""
    """Where it tells that the number rings, as far as it does, and that somebody answered."""


@dataclass(frozen=True, slots=True)
class DialOver:
    """How a dial ended. `caller_left`: the caller has hung up, so no document is followed any more."""

    status: TransferStatus
    caller_left: bool


def check_timeout(provider: Provider, seconds: int) -> int:
    """InvalidArgument for a time of ringing that this carrier does not take."""
    most = _MOST_SECONDS[provider]
    if not MIN_TIMEOUT <= seconds <= most:
        raise InvalidArgument("timeout", f"is not between {MIN_TIMEOUT} and {most} seconds at {provider.value}")
    return seconds


def transfer_document(provider: Provider, dial: TransferDial) -> str:
    """When one of the two hangs up, so is the other."""
    response = ElementTree.Element("Response")
    options = {"action": dial.action, "method": "POST" if dial.action else ""}
    options |= {"timeout": str(dial.timeout), "callerId": dial.caller_id}
    number: dict[str, str] = {}
    if dial.progress and provider is Provider.PLIVO:
        options |= {"callbackUrl": dial.progress, "callbackMethod": "POST"}
    elif dial.progress:
        number = {
            "statusCallback": dial.progress,
            "statusCallbackMethod": "POST",
            "statusCallbackEvent": "ringing answered",
        }
    verb = ElementTree.SubElement(response, "Dial", {name: value for name, value in options.items() if value})
    ElementTree.SubElement(verb, "Number", number).text = dial.number
    if not dial.action and provider is not Provider.PLIVO:
        # Their documents go on after the dialled number has hung up, and end the call when nothing follows.
        ElementTree.SubElement(response, "Hangup")
    return document(response)


def dial_over(provider: Provider, fields: Mapping[str, str]) -> DialOver | None:
    """What a request to the action URL tells; None when it tells of no dial."""
    word = fields.get("DialStatus" if provider is Provider.PLIVO else "DialCallStatus", "").lower()
    caller_left = call_facts(provider, fields).status in _OVER
    if not word:
        # A caller who has hung up may be all there is to tell.
        return DialOver(TransferStatus.CANCELED, caller_left=True) if caller_left else None
    return DialOver(_STATUSES.get(word, TransferStatus.FAILED), caller_left)


def dial_progress(provider: Provider, fields: Mapping[str, str]) -> TransferStatus | None:
    """What a request to the progress URL tells; None for what is no news or comes at the action URL too."""
    if provider is Provider.PLIVO:
        words = (fields.get("DialAction", ""), fields.get("DialBLegStatus", ""))
    else:
        words = (fields.get("CallStatus", ""), "")
    found = (_PROGRESS.get(word.lower()) for word in words)
    return next((status for status in found if status is not None), None)
