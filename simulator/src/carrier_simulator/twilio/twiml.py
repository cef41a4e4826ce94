"""Reads a TwiML document into verbs; whatever Twilio would complain about is refused. Pure.

https://www.twilio.com/docs/voice/twiml
"""

from __future__ import annotations

from typing import Final

from carrier_simulator.reading import (
    Element,
    Readers,
    attributes,
    boolean,
    empty,
    finish_key,
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
    Stream,
    Target,
    Verb,
)

_XML_TYPES: Final = frozenset({"text/xml", "application/xml", "text/html"})
_SIP_SCHEMES: Final = ("sip:", "sips:")
_LONGEST_ADDRESS: Final = 254
_PROGRESS: Final = frozenset({"initiated", "ringing", "answered", "completed"})


def parse_twiml(body: bytes, content_type: str) -> tuple[Verb, ...]:
    """`content_type` as in the header; raise Refused as Twilio would log it."""
    return parse_document(body, content_type, _XML_TYPES, _READERS)


def _say(element: Element) -> Say:
    attributes(element, "voice", "language", "loop")
    text = leaf(element)
    if not text:
        raise wrong("Say has no text")
    return Say(text)


def _pause(element: Element) -> Pause:
    given = attributes(element, "length")
    empty(element)
    return Pause(float(whole(given, "length", 1, 0, 86400)))


def _play(element: Element) -> Play:
    attributes(element, "loop", "digits")
    return Play(leaf(element))


def _hangup(element: Element) -> Hangup:
    attributes(element)
    empty(element)
    return Hangup()


def _reject(element: Element) -> Reject:
    reason = one_of(attributes(element, "reason"), "reason", ("rejected", "busy"))
    empty(element)
    return Reject(reason)


def _redirect(element: Element) -> Redirect:
    return Redirect(leaf(element), method_of(attributes(element, "method")))


def _connect(element: Element) -> Connect:
    given = attributes(element, "action", "method")
    return Connect(_stream(only_child(element, "Stream")), given.get("action", ""), method_of(given))


def _stream(element: Element) -> Stream:
    given = attributes(element, "url", "name", "track", "statusCallback", "statusCallbackMethod")
    if given.get("track", "inbound_track") != "inbound_track":
        raise wrong("a bidirectional Stream has only the inbound_track")
    if "url" not in given:
        raise wrong("Stream needs a url")
    no_text(element)
    parameters: dict[str, str] = {}
    for child in element:
        if child.tag != "Parameter":
            raise wrong(f"Stream may not hold {child.tag}")
        pair = attributes(child, "name", "value")
        if not pair.get("name") or "value" not in pair:
            raise wrong("Parameter needs a name and a value")
        if len(pair["name"]) + len(pair["value"]) > 500:
            raise wrong("a Parameter's name and value may have 500 characters together")
        parameters[pair["name"]] = pair["value"]
    callback, method = given.get("statusCallback", ""), method_of(given, "statusCallbackMethod")
    return Stream(given["url"], parameters, callback=callback, callback_method=method)


def _gather(element: Element) -> Gather:
    """https://www.twilio.com/docs/voice/twiml/gather"""
    given = attributes(
        element,
        *("action", "method", "timeout", "numDigits", "finishOnKey", "input", "actionOnEmptyResult", "language"),
    )
    one_of(given, "input", ("dtmf",))
    most = whole(given, "numDigits", 0, 1, 1000) if "numDigits" in given else None
    timeout = float(whole(given, "timeout", 5, 1, 600))
    return Gather(
        prompts(element, _READERS),
        given.get("action", ""),
        method_of(given),
        most,
        finish_key(given),
        timeout,
        timeout,
        boolean(given, "actionOnEmptyResult"),
    )


def _dial(element: Element) -> Dial:
    """https://www.twilio.com/docs/voice/twiml/dial"""
    given = attributes(
        element, "action", "method", "timeout", "callerId", "answerOnBridge", "timeLimit", "hangupOnStar", "record"
    )
    return Dial(
        _targets(element),
        given.get("action", ""),
        method_of(given),
        float(whole(given, "timeout", 30, 5, 600)),
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
        attributes(
            element,
            *("username", "password", "statusCallback", "statusCallbackEvent", "statusCallbackMethod", "url", "method"),
        )
        if not address.startswith(_SIP_SCHEMES):
            raise wrong("Sip needs a sip: or sips: address")
    else:
        raise wrong(f"Dial may not hold {element.tag}")
    if not address:
        raise wrong(f"{element.tag} has no number or address")
    if len(address) > _LONGEST_ADDRESS:
        raise wrong(f"{element.tag} has more than {_LONGEST_ADDRESS} characters")
    events = frozenset(element.get("statusCallbackEvent", "completed").split())
    if not events <= _PROGRESS:
        raise wrong(f"statusCallbackEvent {' '.join(sorted(events - _PROGRESS))!r} does not exist")
    return Target(
        address,
        element.get("username", ""),
        element.get("password", ""),
        element.get("statusCallback", ""),
        events,
        method_of(element.attrib, "statusCallbackMethod"),
    )


_READERS: Final[Readers] = {
    "Say": _say,
    "Pause": _pause,
    "Play": _play,
    "Hangup": _hangup,
    "Reject": _reject,
    "Redirect": _redirect,
    "Connect": _connect,
    "Gather": _gather,
    "Dial": _dial,
}
