"""Reads a Plivo XML document into verbs; whatever Plivo would complain about is refused. Pure.

https://www.plivo.com/docs/voice/xml/overview
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.reading import (
    Element,
    Readers,
    attributes,
    boolean,
    empty,
    finish_key,
    is_web_url,
    leaf,
    method_of,
    no_text,
    one_of,
    parse_document,
    prompts,
    whole,
    wrong,
)
from carrier_simulator.sounds import LINEAR_8_LITTLE, LINEAR_16_LITTLE, MULAW
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

RECONNECTS = 2
"""https://www.plivo.com/docs/voice/audio-streaming/best-practices: at the first connection, and after a loss. Nothing
says that a connection that succeeds gives a stream two more, so the simulator gives none."""
LONGEST_DOCUMENT = 100_000
"""Bytes."""
_XML_TYPES: Final = frozenset({"text/xml", "application/xml"})
_CONTENT_TYPES: Final = {
    "audio/x-l16;rate=8000": LINEAR_8_LITTLE,
    "audio/x-l16;rate=16000": LINEAR_16_LITTLE,
    "audio/x-mulaw;rate=8000": MULAW,
}
"""The first is the default."""
_LONGEST_HEADERS = 512
_HEADER: Final = re.compile(r"[A-Za-z0-9_-]+=[A-Za-z0-9_-]*")
"""Plivo's page allows letters and digits alone, its own examples have dashes."""


def parse_plivo_xml(body: bytes, content_type: str) -> tuple[Verb, ...]:
    """`content_type` as in the header; raise Refused as Plivo would log it."""
    if len(body) > LONGEST_DOCUMENT:
        raise Refused(Fault.DOCUMENT_PARSE, f"more than {LONGEST_DOCUMENT} bytes")
    return parse_document(body, content_type, _XML_TYPES, _READERS)


def _speak(element: Element) -> Say:
    attributes(element, "voice", "language", "loop")
    text = leaf(element)
    if not text:
        raise wrong("Speak has no text")
    return Say(text)


def _play(element: Element) -> Play:
    attributes(element, "loop")
    return Play(leaf(element))


def _wait(element: Element) -> Pause:
    given = attributes(element, "length", "silence", "minSilence", "beep")
    empty(element)
    return Pause(float(whole(given, "length", 1, 1, 86400)))


def _hangup(element: Element) -> Hangup | Reject:
    given = attributes(element, "reason", "schedule")
    empty(element)
    if "reason" in given:
        return Reject(one_of(given, "reason", ("rejected", "busy")))
    return Hangup()


def _redirect(element: Element) -> Redirect:
    method = method_of(attributes(element, "method"))
    if not is_web_url(leaf(element)):
        raise wrong(f"Redirect needs a complete URL, not {leaf(element)!r}")
    return Redirect(leaf(element), method)


def _stream(element: Element) -> Connect | Start:
    """https://www.plivo.com/docs/voice/xml/audio-streaming"""
    given = attributes(
        element,
        *("bidirectional", "audioTrack", "streamTimeout", "statusCallbackUrl", "statusCallbackMethod"),
        *("contentType", "extraHeaders", "keepCallAlive"),
    )
    url = leaf(element)
    if not url:
        raise wrong("Stream needs a URL for its text")
    both_ways = boolean(given, "bidirectional")
    if one_of(given, "audioTrack", ("inbound", "outbound", "both")) != "inbound":
        raise wrong("a bidirectional Stream has only the inbound track (no other is simulated)")
    whole(given, "streamTimeout", 86400, 1, 86400)
    sound = _CONTENT_TYPES[one_of(given, "contentType", tuple(_CONTENT_TYPES))]
    stream = Stream(
        url,
        _extra_headers(given.get("extraHeaders", "")),
        sound,
        sound,
        takes=Takes.SAMPLES if both_ways else Takes.NOTHING,
        callback=given.get("statusCallbackUrl", ""),
        callback_method=method_of(given, "statusCallbackMethod"),
        reconnects=RECONNECTS,
    )
    # Not kept alive, the call does not wait: it ends with its document, and the stream with the call.
    return Connect(stream) if boolean(given, "keepCallAlive") and both_ways else Start(stream)


def _extra_headers(text: str) -> Mapping[str, str]:
    if len(text.encode()) > _LONGEST_HEADERS:
        raise wrong(f"extraHeaders has more than {_LONGEST_HEADERS} bytes")
    headers: dict[str, str] = {}
    for pair in filter(None, re.split("[,;]", text)):
        if not _HEADER.fullmatch(pair):
            raise wrong(f"extraHeaders holds {pair!r}, which is not name=value of letters, digits and dashes")
        name, _, value = pair.partition("=")
        headers[name] = value
    return headers


def _get_input(element: Element) -> Gather:
    """https://www.plivo.com/docs/voice/xml/input"""
    given = attributes(
        element,
        *("action", "method", "inputType", "executionTimeout", "digitEndTimeout", "numDigits", "finishOnKey"),
        *("redirect", "log", "language"),
    )
    if not given.get("action") or "inputType" not in given:
        raise wrong("GetInput needs an action and an inputType")
    one_of(given, "inputType", ("dtmf",))
    if not boolean(given, "redirect", default="true"):
        raise wrong("GetInput without a redirect is not simulated")
    between = 5 if given.get("digitEndTimeout", "auto") == "auto" else whole(given, "digitEndTimeout", 2, 2, 10)
    return Gather(
        prompts(element, _READERS),
        given["action"],
        method_of(given),
        whole(given, "numDigits", 32, 1, 32),
        finish_key(given),
        float(whole(given, "executionTimeout", 15, 5, 60)),
        float(between),
    )


def _get_digits(element: Element) -> Gather:
    """https://www.plivo.com/docs/voice/xml/getdigits"""
    given = attributes(
        element,
        *("action", "method", "timeout", "digitTimeout", "numDigits", "finishOnKey", "retries", "redirect"),
        *("playBeep", "validDigits", "invalidDigitsSound", "log"),
    )
    if not given.get("action"):
        raise wrong("GetDigits needs an action")
    if not boolean(given, "redirect", default="true") or whole(given, "retries", 1, 1, 99) != 1:
        raise wrong("GetDigits without a redirect, or with retries, is not simulated")
    return Gather(
        prompts(element, _READERS),
        given["action"],
        method_of(given),
        whole(given, "numDigits", 99, 1, 99),
        finish_key(given),
        float(whole(given, "timeout", 5, 1, 600)),
        float(whole(given, "digitTimeout", 2, 1, 600)),
    )


def _dial(element: Element) -> Dial:
    """https://www.plivo.com/docs/voice/xml/dial"""
    given = attributes(
        element,
        *("action", "method", "hangupOnStar", "timeLimit", "timeout", "callerId", "callerName", "redirect"),
        *("callbackUrl", "callbackMethod", "sipHeaders"),
    )
    no_text(element)
    targets = tuple(_target(child, given) for child in element)
    if not targets:
        raise wrong("Dial has no number or address")
    boolean(given, "redirect", default="true")
    return Dial(
        targets,
        given.get("action", ""),
        method_of(given),
        float(whole(given, "timeout", 120, 1, 600)),
        given.get("callerId", ""),
    )


def _target(element: Element, dial: Mapping[str, str]) -> Target:
    if element.tag not in ("Number", "User"):
        raise wrong(f"Dial may not hold {element.tag}")
    attributes(element, "sendDigits", "sendOnPreanswer", "sipHeaders")
    address = leaf(element)
    if not address or (element.tag == "User" and not address.startswith("sip:")):
        raise wrong(f"{element.tag} {address!r} has no number or address")
    callback, method = dial.get("callbackUrl", ""), method_of(dial, "callbackMethod")
    if not callback:
        return Target(address)
    # Plivo reports the answer, not the ringing.
    return Target(address, callback=callback, callback_events=frozenset({"answered"}), callback_method=method)


_READERS: Final[Readers] = {
    "Speak": _speak,
    "Play": _play,
    "Wait": _wait,
    "Hangup": _hangup,
    "Redirect": _redirect,
    "Stream": _stream,
    "GetInput": _get_input,
    "GetDigits": _get_digits,
    "Dial": _dial,
}
