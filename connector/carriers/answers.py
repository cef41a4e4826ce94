"""The documents that tell a carrier what to do with a call: TwiML, TeXML and Plivo's XML.

Every function makes a whole document. Text is escaped; characters that XML cannot carry are left out.

https://www.twilio.com/docs/voice/twiml, https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs,
https://www.plivo.com/docs/voice/xml
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from connector.carriers.base import MediaFormat
from connector.carriers.events import Encoding
from connector.carriers.xml import document
from connector.model import Provider

TelnyxCodecName = Literal["PCMU", "PCMA", "L16"]
PlivoContentType = Literal["audio/x-mulaw;rate=8000", "audio/x-l16;rate=8000", "audio/x-l16;rate=16000"]

LONGEST_FAREWELL = 400
"""Characters. Twilio takes 4,000 for a whole document, and Plivo is given an address that holds the sentence."""
PIN_TIMEOUT = 10
"""Seconds without a key after which the digits so far are sent."""
_KEPT_ALIVE = 86400
"""Seconds: a day. Telnyx streams beside the document, and the call ends with the document."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) has no way to express, not even escaped."""
_NOT_IN_HEADER = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Codecs:
    """What to ask a carrier for that can stream more than one kind of audio."""

    telnyx: TelnyxCodecName = "PCMU"
    plivo: PlivoContentType = "audio/x-mulaw;rate=8000"

    @property
    def telnyx_format(self) -> MediaFormat:
        """What Telnyx then takes from us."""
        return _TELNYX_FORMATS[self.telnyx]


_TELNYX_FORMATS = {
    "PCMU": MediaFormat(Encoding.MULAW, 8000),
    "PCMA": MediaFormat(Encoding.ALAW, 8000),
    "L16": MediaFormat(Encoding.L16, 16000),
}


def stream_answer(
    provider: Provider,
    url: str,
    say: str = "",
    codecs: Codecs = Codecs(),
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Read `say` out if there is anything to say, then stream the call both ways to `url` (ws or wss).

    Twilio cuts a query string off, so its URL must have none. `parameters` come back in the stream's start; Plivo
    takes only letters and digits, of names and values what is something else is left out.

    Nothing comes after the stream, so with Twilio and Plivo the end of the stream ends the call. With Telnyx the
    stream runs beside the document, and a pause of a day holds the call until somebody hangs up.
    """
    response = _response()
    _say(response, provider, say)
    match provider:
        case Provider.TWILIO:
            stream = _child(_child(response, "Connect"), "Stream", url=url)
            _parameters(stream, parameters)
        case Provider.TELNYX:
            # Unless it is asked for one, Telnyx streams in the codec of the call, which may be one that nobody here
            # decodes (G722, OPUS, AMR-WB).
            more: dict[str, str] = {"codec": codecs.telnyx}
            if codecs.telnyx == "L16":
                more["bidirectionalSamplingRate"] = str(codecs.telnyx_format.rate)
            stream = _child(
                _child(response, "Start"),
                "Stream",
                url=url,
                track="both_tracks",
                bidirectionalMode="rtp",
                bidirectionalCodec=codecs.telnyx,
                **more,
            )
            _parameters(stream, parameters)
            _child(response, "Pause", length=str(_KEPT_ALIVE))
        case Provider.PLIVO:
            headers = ";".join(
                f"{_NOT_IN_HEADER.sub('', name)}={_NOT_IN_HEADER.sub('', value)}"
                for name, value in (parameters or {}).items()
            )
            stream = _child(
                response,
                "Stream",
                bidirectional="true",
                keepCallAlive="true",
                contentType=codecs.plivo,
                **({"extraHeaders": headers} if headers else {}),
            )
            stream.text = _clean(url)
    return document(response)


def refusal(provider: Provider, say: str) -> str:
    """Say a sentence and hang up."""
    response = _response()
    _say(response, provider, say)
    _child(response, "Hangup")
    return document(response)


def farewell(provider: Provider, say: str) -> str:
    """A refusal for a call that is going on: the sentence is cut where it is longer than a caller would listen to."""
    return refusal(provider, _clean(say).strip()[:LONGEST_FAREWELL])


def hang_up(provider: Provider) -> str:
    """End the call without a word."""
    return refusal(provider, "")


def reject(provider: Provider) -> str:
    """Refuse a call before it is answered: nobody pays for it, and the caller hears what their own network has for a
    number that does not answer. A call that was answered is hung up.

    https://www.twilio.com/docs/voice/twiml/reject,
    https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/reject,
    https://www.plivo.com/docs/voice/xml/hangup
    """
    response = _response()
    _child(response, "Hangup" if provider is Provider.PLIVO else "Reject", reason="rejected")
    return document(response)


def ask_pin(provider: Provider, action_url: str, prompt: str, digits: int) -> str:
    """Ask for `digits` keys; the carrier sends what was pressed, also nothing, to `action_url` as `Digits`.

    `#` ends the input early.
    """
    response = _response()
    match provider:
        case Provider.PLIVO:
            gather = _child(
                response,
                "GetInput",
                action=action_url,
                method="POST",
                inputType="dtmf",
                numDigits=str(digits),
                finishOnKey="#",
                executionTimeout=str(2 * PIN_TIMEOUT),
                digitEndTimeout=str(PIN_TIMEOUT),
                redirect="true",
                log="false",
            )
        case Provider.TWILIO | Provider.TELNYX:
            gather = _child(
                response,
                "Gather",
                action=action_url,
                method="POST",
                input="dtmf",
                numDigits=str(digits),
                finishOnKey="#",
                timeout=str(PIN_TIMEOUT),
                **({"actionOnEmptyResult": "true"} if provider is Provider.TWILIO else {}),
            )
    _say(gather, provider, prompt)
    if provider is not Provider.TWILIO:
        # Where nothing was pressed the carrier goes on here instead.
        redirect = _child(response, "Redirect", method="POST")
        redirect.text = _clean(action_url)
    return document(response)


def _say(parent: ElementTree.Element, provider: Provider, text: str) -> None:
    spoken = _clean(text).strip()
    if spoken:
        _child(parent, "Speak" if provider is Provider.PLIVO else "Say").text = spoken


def _parameters(stream: ElementTree.Element, parameters: Mapping[str, str] | None) -> None:
    for name, value in (parameters or {}).items():
        _child(stream, "Parameter", name=name, value=value)


def _response() -> ElementTree.Element:
    return ElementTree.Element("Response")


def _child(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {name: _clean(value) for name, value in attributes.items()})


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)
