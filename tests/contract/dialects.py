"""One carrier's side of the wire, as the contract suite needs it: what it says, and what it understands."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from connector.carriers.codec import Codec
from connector.carriers.events import AudioRejected, Encoding, Event, OwnAudio
from connector.carriers.plivo.codec import PlivoCodec
from connector.carriers.telnyx.codec import TelnyxCodec
from connector.carriers.twilio.codec import TwilioCodec
from tests.acme.dialect import AcmeDialect
from tests.contract.words import ACCOUNT, CALL, STREAM, Sent


class Dialect(Protocol):
    name: str
    encoding: Encoding
    rate: int
    attribute_prefix: str
    has_own_ids: bool
    """See `StreamStarted`."""
    other_track_is: Event
    """What `other_track` is to the codec."""
    informs: Mapping[str, frozenset[str]]
    """By message, the dotted paths of the fields that only inform: any value may stand there, or none."""
    format_field: str
    rate_field: str
    """Where `start` tells the format, and in it the samples a second."""

    def sequence_at(self, milliseconds: int) -> int | None:
        """The place of `media` at this time among the track's frames, from a carrier that needs to tell it."""
        ...

    def codec(self) -> Codec: ...

    def opening(self) -> list[str]:
        """What comes before `start`, if anything."""
        ...

    def start(self, parameters: Mapping[str, str] = {}) -> str:
        """The start of the stream STREAM of the call CALL of ACCOUNT."""
        ...

    def media(self, payload: bytes, milliseconds: int = 20) -> str: ...

    def media_with_payload(self, text: str) -> str: ...

    def other_track(self, payload: bytes) -> str: ...

    def digit(self, digit: str) -> str: ...

    def mark(self, name: str) -> str: ...

    def stop(self) -> str: ...

    def read(self, text: str) -> Sent:
        """Strict: fails on anything that the carrier has not documented."""
        ...


class TwilioDialect:
    name = "twilio"
    encoding = Encoding.MULAW
    rate = 8000
    attribute_prefix = "twilio."
    has_own_ids = False
    other_track_is: Event = AudioRejected("wrong_track")
    format_field = "mediaFormat"
    rate_field = "sampleRate"
    informs: Mapping[str, frozenset[str]] = MappingProxyType(
        {
            "start": frozenset(
                {
                    *("sequenceNumber", "start.accountSid", "start.tracks", "start.customParameters"),
                    "start.mediaFormat",
                }
            ),
            "media": frozenset({"sequenceNumber", "media.chunk", "media.timestamp"}),
            "digit": frozenset({"sequenceNumber", "dtmf.track"}),
            "stop": frozenset({"sequenceNumber", "stop", "stop.accountSid"}),
        }
    )

    def __init__(self) -> None:
        self._count = 0

    def sequence_at(self, milliseconds: int) -> int | None:
        return None

    def codec(self) -> Codec:
        return TwilioCodec()

    def opening(self) -> list[str]:
        return [json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})]

    def start(self, parameters: Mapping[str, str] = {}) -> str:
        start = {
            "accountSid": ACCOUNT,
            "streamSid": STREAM,
            "callSid": CALL,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(parameters),
        }
        return self._message("start", {"start": start})

    def media(self, payload: bytes, milliseconds: int = 20) -> str:
        return self._media("inbound", b64encode(payload).decode(), milliseconds)

    def media_with_payload(self, text: str) -> str:
        return self._media("inbound", text)

    def other_track(self, payload: bytes) -> str:
        return self._media("outbound", b64encode(payload).decode())

    def digit(self, digit: str) -> str:
        return self._message("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def mark(self, name: str) -> str:
        return self._message("mark", {"mark": {"name": name}})

    def stop(self) -> str:
        return self._message("stop", {"stop": {"accountSid": ACCOUNT, "callSid": CALL}})

    def read(self, text: str) -> Sent:
        message = json.loads(text)
        assert message.pop("streamSid") == STREAM
        match message:
            case {"event": "media", "media": {"payload": str(payload), **more}, **most} if not (more or most):
                return Sent("audio", payload=b64decode(payload, validate=True))
            case {"event": "mark", "mark": {"name": str(name), **more}, **most} if not (more or most):
                return Sent("mark", name=name)
            case {"event": "clear", **most} if not most:
                return Sent("clear")
        raise AssertionError(f"the carrier does not know {message}")

    def _media(self, track: str, payload: str, milliseconds: int = 20) -> str:
        media = {"track": track, "chunk": "1", "timestamp": str(milliseconds), "payload": payload}
        return self._message("media", {"media": media})

    def _message(self, event: str, body: dict[str, object]) -> str:
        self._count += 1
        return json.dumps({"event": event, "sequenceNumber": str(self._count), "streamSid": STREAM} | body)


class TelnyxDialect:
    name = "telnyx"
    encoding = Encoding.MULAW
    rate = 8000
    attribute_prefix = "telnyx."
    has_own_ids = True
    other_track_is: Event = OwnAudio()
    format_field = "media_format"
    rate_field = "sample_rate"
    informs: Mapping[str, frozenset[str]] = MappingProxyType(
        {
            "start": frozenset(
                {
                    *("sequence_number", "start.user_id", "start.call_session_id", "start.from", "start.to"),
                    *("start.tags", "start.client_state", "start.custom_parameters"),
                    "start.media_format",
                }
            ),
            "media": frozenset({"sequence_number", "media.chunk", "media.timestamp"}),
            "digit": frozenset({"sequence_number", "occurred_at"}),
            "stop": frozenset({"sequence_number", "stop", "stop.user_id", "stop.call_control_id"}),
        }
    )

    def __init__(self) -> None:
        self._count = 0

    def sequence_at(self, milliseconds: int) -> int | None:
        return milliseconds // 20

    def codec(self) -> Codec:
        return TelnyxCodec()

    def opening(self) -> list[str]:
        return [json.dumps({"event": "connected", "version": "1.0.0"})]

    def start(self, parameters: Mapping[str, str] = {}) -> str:
        start = {
            "user_id": ACCOUNT,
            "call_control_id": CALL,
            "call_session_id": "ff55a038-6f5d-11ef-9692-02420aeffb1f",
            "from": "",
            "to": "",
            "tags": [],
            "client_state": "",
            "custom_parameters": dict(parameters),
            "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
        }
        return self._message("start", {"start": start})

    def media(self, payload: bytes, milliseconds: int = 20) -> str:
        return self._media("inbound", b64encode(payload).decode(), milliseconds)

    def media_with_payload(self, text: str) -> str:
        return self._media("inbound", text)

    def other_track(self, payload: bytes) -> str:
        return self._media("outbound", b64encode(payload).decode())

    def digit(self, digit: str) -> str:
        return self._message("dtmf", {"occurred_at": "2026-01-01T00:00:00Z", "dtmf": {"digit": digit}})

    def mark(self, name: str) -> str:
        return self._message("mark", {"mark": {"name": name}})

    def stop(self) -> str:
        return self._message("stop", {"stop": {"user_id": ACCOUNT, "call_control_id": CALL}})

    def read(self, text: str) -> Sent:
        match json.loads(text):
            case {"event": "media", "media": {"payload": str(payload), **more}, **most} if not (more or most):
                return Sent("audio", payload=b64decode(payload, validate=True))
            case {"event": "mark", "mark": {"name": str(name), **more}, **most} if not (more or most):
                return Sent("mark", name=name)
            case {"event": "clear", **most} if not most:
                return Sent("clear")
        raise AssertionError(f"the carrier does not know {text}")

    def _media(self, track: str, payload: str, milliseconds: int = 20) -> str:
        # The chunk counts the frames of the stream's time, 20 ms each.
        media = {"track": track, "chunk": str(milliseconds // 20), "timestamp": str(milliseconds), "payload": payload}
        return self._message("media", {"media": media})

    def _message(self, event: str, body: dict[str, object]) -> str:
        self._count += 1
        return json.dumps({"event": event, "sequence_number": str(self._count), "stream_id": STREAM} | body)


class PlivoDialect:
    name = "plivo"
    encoding = Encoding.MULAW
    rate = 8000
    attribute_prefix = "plivo."
    has_own_ids = False
    other_track_is: Event = AudioRejected("wrong_track")
    format_field = "mediaFormat"
    rate_field = "sampleRate"
    informs: Mapping[str, frozenset[str]] = MappingProxyType(
        {
            "start": frozenset(
                {"sequenceNumber", "extra_headers", "start.accountId", "start.tracks", "start.mediaFormat"}
            ),
            "media": frozenset({"sequenceNumber", "media.chunk", "media.timestamp"}),
            "digit": frozenset({"sequenceNumber", "dtmf.track", "dtmf.timestamp"}),
            "stop": frozenset({"sequenceNumber"}),
        }
    )

    def __init__(self) -> None:
        self._count = 0

    def sequence_at(self, milliseconds: int) -> int | None:
        return None

    def codec(self) -> Codec:
        return PlivoCodec()

    def opening(self) -> list[str]:
        return []

    def start(self, parameters: Mapping[str, str] = {}) -> str:
        start = {
            "callId": CALL,
            "streamId": STREAM,
            "accountId": ACCOUNT,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
        }
        headers = ";".join(f"{name}={value}" for name, value in parameters.items())
        self._count += 1
        return json.dumps({"event": "start", "sequenceNumber": self._count, "start": start, "extra_headers": headers})

    def media(self, payload: bytes, milliseconds: int = 20) -> str:
        return self._media("inbound", b64encode(payload).decode(), milliseconds)

    def media_with_payload(self, text: str) -> str:
        return self._media("inbound", text)

    def other_track(self, payload: bytes) -> str:
        return self._media("outbound", b64encode(payload).decode())

    def digit(self, digit: str) -> str:
        return self._message("dtmf", {"dtmf": {"track": "inbound", "digit": digit, "timestamp": "1"}})

    def mark(self, name: str) -> str:
        return self._message("playedStream", {"name": name})

    def stop(self) -> str:
        return self._message("stop", {})

    def read(self, text: str) -> Sent:
        match json.loads(text):
            case {
                "event": "playAudio",
                "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": str(payload), **more},
                **most,
            } if not (more or most):
                return Sent("audio", payload=b64decode(payload, validate=True))
            case {
                "event": "checkpoint",
                "streamId": "MZ0123456789abcdef0123456789abcdef",
                "name": str(name),
                **most,
            } if not most:
                return Sent("mark", name=name)
            case {"event": "clearAudio", "streamId": "MZ0123456789abcdef0123456789abcdef", **most} if not most:
                return Sent("clear")
        raise AssertionError(f"the carrier does not know {text}")

    def _media(self, track: str, payload: str, milliseconds: int = 20) -> str:
        media = {"track": track, "timestamp": str(milliseconds), "chunk": 1, "payload": payload}
        return self._message("media", {"media": media})

    def _message(self, event: str, body: dict[str, object]) -> str:
        self._count += 1
        return json.dumps({"event": event, "sequenceNumber": self._count, "streamId": STREAM} | body)


DIALECTS: list[type[Dialect]] = [TwilioDialect, TelnyxDialect, PlivoDialect, AcmeDialect]
