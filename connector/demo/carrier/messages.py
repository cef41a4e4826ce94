"""The media stream's messages: reads the server's with no mercy, writes the carrier's. Pure.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from connector.demo.carrier.faults import Fault, Refused


@dataclass(frozen=True, slots=True)
class Media:
    payload: bytes
    """G.711 μ-law, 8 kHz, mono."""


@dataclass(frozen=True, slots=True)
class Mark:
    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    pass


FromServer = Media | Mark | Clear

_MEDIA_KEYS = {"event", "streamSid", "media"}
_MARK_KEYS = {"event", "streamSid", "mark"}
_CLEAR_KEYS = {"event", "streamSid"}


def read(text: str, stream_sid: str) -> FromServer:
    """Raise Refused (31951) for anything that is not to the letter one of the three documented messages."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("not JSON") from error
    if not isinstance(message, dict):
        raise _wrong("not a JSON object")
    event = message.get("event")
    if event == "media":
        _exactly(message, _MEDIA_KEYS)
        result: FromServer = Media(_payload(_inner(message, "media", "payload")))
    elif event == "mark":
        _exactly(message, _MARK_KEYS)
        result = Mark(_inner(message, "mark", "name"))
    elif event == "clear":
        _exactly(message, _CLEAR_KEYS)
        result = Clear()
    else:
        raise _wrong(f"unknown event {event!r}")
    if message["streamSid"] != stream_sid:
        raise _wrong(f"streamSid {message['streamSid']!r} is not this stream's")
    return result


def _wrong(what: str) -> Refused:
    return Refused(Fault.STREAM_MESSAGE, what)


def _exactly(message: Mapping[str, object], keys: set[str]) -> None:
    if message.keys() != keys:
        extra, missing = sorted(message.keys() - keys), sorted(keys - message.keys())
        raise _wrong(f"fields of {message['event']}: {extra} too many, {missing} missing")


def _inner(message: Mapping[str, object], name: str, key: str) -> str:
    inner = message[name]
    if not isinstance(inner, dict) or inner.keys() != {key} or not isinstance(inner[key], str):
        raise _wrong(f"{name} must be an object with the one string {key!r}")
    return str(inner[key])


def _payload(encoded: str) -> bytes:
    try:
        payload = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise _wrong("the payload is not base64") from error
    if not payload:
        raise _wrong("the payload is empty")
    return payload


class Writer:
    """Writes one stream's messages; numbers are strings, as Twilio's are."""

    def __init__(self, account_sid: str, call_sid: str, stream_sid: str) -> None:
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._stream_sid = stream_sid
        self._sequence = 0
        self._chunk = 0

    @staticmethod
    def connected() -> str:
        return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self, parameters: Mapping[str, str]) -> str:
        start = {
            "accountSid": self._account_sid,
            "streamSid": self._stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(parameters),
        }
        return self._event("start", start=start)

    def media(self, payload: bytes, milliseconds: int) -> str:
        """`milliseconds` since the stream's start, of the payload's first sample."""
        self._sequence += 1
        self._chunk += 1
        # Fifty times a second for each of many calls: built by hand, half a load test's time otherwise.
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{milliseconds}","payload":"'
            f'{base64.b64encode(payload).decode("ascii")}"}},"streamSid":"{self._stream_sid}"}}'
        )

    def dtmf(self, digit: str) -> str:
        return self._event("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        return self._event("mark", mark={"name": name})

    def stop(self) -> str:
        return self._event("stop", stop={"accountSid": self._account_sid, "callSid": self._call_sid})

    def _event(self, event: str, **body: object) -> str:
        self._sequence += 1
        return json.dumps(
            {"event": event, "sequenceNumber": str(self._sequence), **body, "streamSid": self._stream_sid}
        )
