"""Reads a TeXML document into verbs; whatever Telnyx would complain about is refused. Pure.

https://developers.telnyx.com/docs/voice/programmable-voice/texml-translator
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from carrier_simulator.reading import (
    Element,
    Readers,
    attributes,
    empty,
    finish_key,
    is_web_url,
    leaf,
    method_of,
    no_text,
    one_of,
    only_child,
    parse_document,
    prompts,
    whole,
    wrong,
)
from carrier_simulator.sounds import ALAW, LINEAR_8_BIG, LINEAR_16_BIG, MULAW, Sound
from carrier_simulator.verbs import (
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Start,
    Stream,
    Takes,
    Target,
    Verb,
)

_XML_TYPES: Final = frozenset({"text/xml", "application/xml"})
_TRACKS: Final = ("inbound_track", "outbound_track", "both_tracks")
_CODECS: Final = ("PCMU", "PCMA", "L16")
"""Of more that Telnyx has: those that the simulated telephone can code."""
_RATES: Final = ("8000", "16000", "24000")
_LINEAR: Final = {"8000": LINEAR_8_BIG, "16000": LINEAR_16_BIG}


def parse_texml(body: bytes, content_type: str) -> tuple[Verb, ...]:
    """`content_type` as in the header; raise Refused as Telnyx would log it."""
    return parse_document(body, content_type, _XML_TYPES, _READERS)


def _say(element: Element) -> Say:
    attributes(element, "voice", "language", "loop")
    text = leaf(element)
    if not text:
        raise wrong("Say has no text")
    return Say(text)


def _play(element: Element) -> Play:
    attributes(element, "loop", "digits", "mediaStorage")
    return Play(leaf(element))


def _pause(element: Element) -> Pause:
    given = attributes(element, "length")
    empty(element)
    return Pause(float(whole(given, "length", 1, 1, 86400)))


def _hangup(element: Element) -> Hangup:
    attributes(element)
    empty(element)
    return Hangup()


def _reject(element: Element) -> Reject:
    reason = one_of(attributes(element, "reason"), "reason", ("rejected", "busy"))
    empty(element)
    return Reject(reason)


def _redirect(element: Element) -> Redirect:
    method = method_of(attributes(element, "method"))
    if not is_web_url(leaf(element)):
        raise wrong(f"Redirect needs a complete URL, not {leaf(element)!r}")
    return Redirect(leaf(element), method)


def _start(element: Element) -> Start:
    attributes(element)
    return Start(read_stream(only_child(element, "Stream")))


def _connect(element: Element) -> Connect:
    given = attributes(element, "action", "method")
    return Connect(read_stream(only_child(element, "Stream")), given.get("action", ""), method_of(given))


def read_stream(element: Element) -> Stream:
    """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/stream"""
    given = attributes(
        element,
        *("url", "track", "name", "codec", "bidirectionalMode", "bidirectionalCodec", "bidirectionalSamplingRate"),
        *("statusCallback", "statusCallbackMethod", "enableReconnect"),
    )
    if not given.get("url"):
        raise wrong("Stream needs a url")
    track = one_of(given, "track", _TRACKS)
    if track == "outbound_track":
        raise wrong("a stream without the inbound track is not simulated")
    rate = one_of(given, "bidirectionalSamplingRate", _RATES)
    codec = one_of(given, "codec", ("default", *_CODECS))
    speaks = MULAW if codec == "default" else _sound(codec, given.get("bidirectionalSamplingRate", "16000"))
    return Stream(
        given["url"],
        _parameters(element),
        speaks,
        _sound(one_of(given, "bidirectionalCodec", _CODECS), rate),
        echoes=track == "both_tracks",
        takes=Takes.FILES if one_of(given, "bidirectionalMode", ("mp3", "rtp")) == "mp3" else Takes.SAMPLES,
        callback=given.get("statusCallback", ""),
        callback_method=method_of(given, "statusCallbackMethod"),
    )


def _sound(codec: str, rate: str) -> Sound:
    if codec == "L16":
        if rate not in _LINEAR:
            raise wrong(f"L16 of {rate} Hz is not simulated")
        return _LINEAR[rate]
    return {"PCMU": MULAW, "PCMA": ALAW}[codec]


def _parameters(element: Element) -> Mapping[str, str]:
    no_text(element)
    parameters: dict[str, str] = {}
    for child in element:
        if child.tag != "Parameter":
            raise wrong(f"Stream may not hold {child.tag}")
        pair = attributes(child, "name", "value")
        if not pair.get("name") or "value" not in pair:
            raise wrong("Parameter needs a name and a value")
        parameters[pair["name"]] = pair["value"]
    return parameters


def _gather(element: Element) -> Gather:
    """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/gather"""
    given = attributes(
        element,
        *("action", "method", "timeout", "input", "numDigits", "minDigits", "maxDigits", "finishOnKey", "validDigits"),
        *("invalidDigitsAction", "language"),
    )
    one_of(given, "input", ("dtmf",))
    limit = next((name for name in ("numDigits", "maxDigits") if name in given), None)
    timeout = float(whole(given, "timeout", 5, 1, 120))
    return Gather(
        prompts(element, _READERS),
        given.get("action", ""),
        method_of(given),
        whole(given, limit, 0, 1, 128) if limit else None,
        finish_key(given),
        timeout,
        timeout,
    )


def _dial(element: Element) -> Dial:
    """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/dial"""
    given = attributes(
        element,
        *("action", "method", "callerId", "fromDisplayName", "hangupOnStar", "timeout", "timeLimit", "record"),
    )
    return Dial(
        _targets(element),
        given.get("action", ""),
        method_of(given),
        float(whole(given, "timeout", 30, 5, 120)),
        given.get("callerId", ""),
    )


def _targets(element: Element) -> tuple[Target, ...]:
    if not len(element):
        if not leaf(element):
            raise wrong("Dial has no number or address")
        return (Target(leaf(element)),)
    no_text(element)
    return tuple(_target(child) for child in element)


def _target(element: Element) -> Target:
    address = leaf(element)
    if element.tag == "Number":
        attributes(element, "statusCallback", "statusCallbackEvent", "statusCallbackMethod", "url", "method")
    elif element.tag == "Sip":
        attributes(element, "username", "password", "statusCallback", "statusCallbackEvent", "statusCallbackMethod")
        if not address.startswith(("sip:", "sips:")):
            raise wrong("Sip needs a sip: or sips: address")
    else:
        raise wrong(f"Dial may not hold {element.tag}")
    if not address:
        raise wrong(f"{element.tag} has no number or address")
    return Target(
        address,
        element.get("username", ""),
        element.get("password", ""),
        element.get("statusCallback", ""),
        frozenset(element.get("statusCallbackEvent", "completed").split()),
        method_of(element.attrib, "statusCallbackMethod"),
    )


_READERS: Final[Readers] = {
    "Say": _say,
    "Play": _play,
    "Pause": _pause,
    "Hangup": _hangup,
    "Reject": _reject,
    "Redirect": _redirect,
    "Start": _start,
    "Connect": _connect,
    "Gather": _gather,
    "Dial": _dial,
}
