"""ACME's side of the wire, as the contract suite needs it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import MappingProxyType

from connector.carriers.codec import Codec
from connector.carriers.events import AudioRejected, Encoding, Event
from tests.acme.codec import AcmeCodec
from tests.contract.words import ACCOUNT, CALL, STREAM, Sent


class AcmeDialect:
    name = "acme"
    encoding = Encoding.MULAW
    rate = 8000
    attribute_prefix = "acme."
    has_own_ids = False
    other_track_is: Event = AudioRejected("wrong_track")
    format_field = "format"
    rate_field = "rate"
    informs: Mapping[str, frozenset[str]] = MappingProxyType(
        {
            "start": frozenset({"start.account", "start.format", "start.parameters"}),
            "media": frozenset({"media.at"}),
            "digit": frozenset({"dtmf.at"}),
            "stop": frozenset({"reason"}),
        }
    )

    def sequence_at(self, milliseconds: int) -> int | None:
        return None

    def codec(self) -> Codec:
        return AcmeCodec()

    def opening(self) -> list[str]:
        return []

    def start(self, parameters: Mapping[str, str] = {}) -> str:
        media = {"encoding": "mulaw", "rate": 8000}
        start = {"call": CALL, "stream": STREAM, "account": ACCOUNT, "format": media, "parameters": dict(parameters)}
        return json.dumps({"event": "start", "start": start})

    def media(self, payload: bytes, milliseconds: int = 20) -> str:
        return self._media("inbound", b64encode(payload).decode(), milliseconds)

    def media_with_payload(self, text: str) -> str:
        return self._media("inbound", text)

    def other_track(self, payload: bytes) -> str:
        return self._media("outbound", b64encode(payload).decode())

    def digit(self, digit: str) -> str:
        return json.dumps({"event": "dtmf", "dtmf": {"digit": digit, "at": 20}})

    def mark(self, name: str) -> str:
        return json.dumps({"event": "mark", "name": name})

    def stop(self) -> str:
        return json.dumps({"event": "stop", "reason": "hangup"})

    def read(self, text: str) -> Sent:
        match json.loads(text):
            case {"event": "media", "media": {"payload": str(payload), **more}, **most} if not (more or most):
                return Sent("audio", payload=b64decode(payload, validate=True))
            case {"event": "mark", "name": str(name), **most} if not most:
                return Sent("mark", name=name)
            case {"event": "clear", **most} if not most:
                return Sent("clear")
        raise AssertionError(f"the carrier does not know {text}")

    def _media(self, track: str, payload: str, milliseconds: int = 20) -> str:
        return json.dumps({"event": "media", "media": {"track": track, "at": milliseconds, "payload": payload}})
