"""TeXML that answers a call. https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs"""

from __future__ import annotations

from typing import Literal

from connector.carriers.carrier import PIN_TIMEOUT
from connector.carriers.codec import MediaFormat
from connector.carriers.events import Encoding
from connector.carriers.twiml import gather, say
from connector.carriers.xml import child, document, response

CodecName = Literal["PCMU", "PCMA", "L16"]

FORMATS: dict[CodecName, MediaFormat] = {
    "PCMU": MediaFormat(Encoding.MULAW, 8000),
    "PCMA": MediaFormat(Encoding.ALAW, 8000),
    "L16": MediaFormat(Encoding.L16, 16000),
}
"""What Telnyx takes from us when it was asked for a codec."""
_KEPT_ALIVE = 86400
"""Seconds: a day. Telnyx streams beside the document, and the call ends with the document."""


def stream_answer(url: str, sentence: str, codec: CodecName) -> str:
    """The stream runs beside the document, and a pause of a day holds the call until somebody hangs up."""
    root = response()
    say(root, sentence)
    # Unless it is asked for one, Telnyx streams in the codec of the call, which may be one that nobody here decodes
    # (G722, OPUS, AMR-WB).
    more: dict[str, str] = {"codec": codec}
    if codec == "L16":
        more["bidirectionalSamplingRate"] = str(FORMATS[codec].rate)
    child(
        child(root, "Start"),
        "Stream",
        url=url,
        track="both_tracks",
        bidirectionalMode="rtp",
        bidirectionalCodec=codec,
        **more,
    )
    child(root, "Pause", length=str(_KEPT_ALIVE))
    return document(root)


def ask_pin(action_url: str, prompt: str, digits: int) -> str:
    root = response()
    gather(root, action_url, prompt, digits, PIN_TIMEOUT)
    # Where nothing was pressed the carrier goes on here instead.
    child(root, "Redirect", action_url, method="POST")
    return document(root)
