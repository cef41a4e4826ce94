"""The offer of a carrier that uses G.711, and the conditions for an answer to it. Pure."""

from __future__ import annotations

import re

_AUDIO = re.compile(r"m=audio ([0-9]+) RTP/AVP ([0-9 ]+)")
_G711 = {"0", "8"}


def offer(host: str, port: int) -> bytes:
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {host}",
        "s=Twilio Media Gateway",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
    ]
    return ("\r\n".join(lines) + "\r\n").encode()


def fault_of(answer: bytes, content_type: str) -> str:
    """Why audio cannot flow by this answer; empty when it can."""
    if content_type.partition(";")[0].strip().lower() != "application/sdp" or not answer:
        return "the answer has no SDP"
    lines = answer.decode(errors="replace").replace("\r\n", "\n").split("\n")
    media = [match for line in lines if (match := _AUDIO.fullmatch(line.strip()))]
    if not media:
        return "the answer's SDP has no audio"
    if len([line for line in lines if line.startswith("m=")]) != 1:
        return "the answer has another number of media than the offer"
    if int(media[0][1]) == 0:
        return "the answer refuses the audio (port 0)"
    if not _G711 & set(media[0][2].split()):
        return "the answer takes none of the offered codecs"
    if not any(line.startswith("c=IN IP4 ") for line in lines):
        return "the answer's SDP has no connection address"
    return ""
