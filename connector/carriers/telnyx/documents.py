"""TeXML that answers a call. https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs"""

from __future__ import annotations

from typing import Literal

from connector.carriers.carrier import PIN_TIMEOUT
from connector.carriers.codec import MediaFormat
from connector.carriers.events import Encoding
from connector.carriers.resume_url import resume_url
from connector.carriers.twiml import gather, say, way_back
from connector.carriers.xml import child, document, response

CodecName = Literal["PCMU", "PCMA", "L16"]

FORMATS: dict[CodecName, MediaFormat] = {
    "PCMU": MediaFormat(Encoding.MULAW, 8000),
    "PCMA": MediaFormat(Encoding.ALAW, 8000),
    "L16": MediaFormat(Encoding.L16, 16000),
}
"""The format of the audio that we send to Telnyx, by requested codec."""


def stream_answer(url: str, sentence: str, codec: CodecName, *, in_connect: bool, pause: int) -> str:
    """The stream runs in parallel with the document, and the call ends when the document ends. So the document is a
    short pause of `pause` seconds, after which Telnyx asks us how the call goes on: a phone is on a silent line for one
    pause at most.

    With `in_connect`, the document waits for the end of the stream instead.
    """
    root = response()
    say(root, sentence)
    # Without a requested codec, Telnyx streams in the codec of the call, which may be one that we cannot decode
    # (G722, OPUS, AMR-WB).
    more: dict[str, str] = {"codec": codec}
    if codec == "L16":
        more["bidirectionalSamplingRate"] = str(FORMATS[codec].rate)
    child(
        child(root, "Connect" if in_connect else "Start"),
        "Stream",
        url=url,
        track="both_tracks",
        bidirectionalMode="rtp",
        bidirectionalCodec=codec,
        **more,
    )
    if not in_connect:
        child(root, "Pause", length=str(pause))
    way_back(root, resume_url(url))
    return document(root)


def ask_pin(action_url: str, prompt: str, digits: int) -> str:
    root = response()
    gather(root, action_url, prompt, digits, PIN_TIMEOUT)
    # If no key was pressed, the carrier continues here instead of requesting the action URL.
    child(root, "Redirect", action_url, method="POST")
    return document(root)
