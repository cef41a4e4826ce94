"""Telnyx's media streaming messages: reads the server's with no mercy, writes the carrier's. Pure.

https://developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.sounds import ALAW, LINEAR_8_BIG, LINEAR_16_BIG, MULAW, Sound
from carrier_simulator.verbs import Stream, Takes
from carrier_simulator.wire import Clear, FromServer, Letter, Mark, Media, base64_bytes

ENCODINGS: Mapping[Sound, str] = {MULAW: "PCMU", ALAW: "PCMA", LINEAR_8_BIG: "L16", LINEAR_16_BIG: "L16"}
SHORTEST, LONGEST = 0.02, 30.0
"""Seconds of audio that one message may hold."""
_TITLES = {
    Fault.MALFORMED_FRAME: "malformed_frame",
    Fault.INVALID_MEDIA: "invalid_media",
    Fault.RATE_LIMIT: "rate_limit_reached",
}


@dataclass(frozen=True, slots=True)
class Ids:
    """What a stream's messages tell about the call."""

    stream_id: str
    user_id: str
    call_control_id: str
    call_session_id: str
    from_: str
    to: str


class TelnyxWire:
    """One stream's messages. Numbers that count are strings. `clock`, in seconds, is for the limit on files."""

    buffer_seconds = float("inf")

    def __init__(
        self, ids: Ids, stream: Stream, clock: Callable[[], float], call_codec: tuple[str, int] | None = None
    ) -> None:
        """`call_codec`: of a call that is streamed in its own codec, here by name alone."""
        self._codec = call_codec or (ENCODINGS[stream.speaks], stream.speaks.rate)
        self.stream_id = ids.stream_id
        self.speaks, self.plays, self.echoes = stream.speaks, stream.plays, stream.echoes
        self._ids = ids
        self._parameters = stream.parameters
        self._takes = stream.takes
        self._clock = clock
        self._sequence = 0
        self._chunks = {"inbound": 0, "outbound": 0}
        self._last_file = float("-inf")

    def opening(self) -> Sequence[str]:
        return (json.dumps({"event": "connected", "version": "1.0.0"}), self._start())

    def _start(self) -> str:
        ids = self._ids
        start = {
            "user_id": ids.user_id,
            "call_control_id": ids.call_control_id,
            "call_session_id": ids.call_session_id,
            "from": ids.from_,
            "to": ids.to,
            "tags": [],
            "client_state": "",
            "media_format": {"encoding": self._codec[0], "sample_rate": self._codec[1], "channels": 1},
        }
        if self._parameters:
            start["custom_parameters"] = dict(self._parameters)
        return self._event("start", start=start)

    def media(self, payload: bytes, milliseconds: int) -> str:
        return self._media("inbound", payload, milliseconds)

    def echo(self, payload: bytes, milliseconds: int) -> str:
        return self._media("outbound", payload, milliseconds)

    def _media(self, track: str, payload: bytes, milliseconds: int) -> str:
        self._chunks[track] += 1
        return self._event(
            "media",
            media={
                "track": track,
                "chunk": str(self._chunks[track]),
                "timestamp": str(milliseconds),
                "payload": base64.b64encode(payload).decode("ascii"),
            },
        )

    def dtmf(self, digit: str) -> str:
        return self._event("dtmf", occurred_at=datetime.now(UTC).isoformat(), dtmf={"digit": digit})

    def mark(self, name: str) -> str:
        return self._event("mark", mark={"name": name})

    def cleared(self, marks: Sequence[str]) -> Sequence[str]:
        return [self.mark(name) for name in marks]

    def closing(self) -> Sequence[str]:
        stop = {"user_id": self._ids.user_id, "call_control_id": self._ids.call_control_id}
        return (self._event("stop", stop=stop),)

    def read(self, text: str) -> FromServer:
        """Raise Refused: 100003 for what is no documented message, 100004 and 100005 for audio that is not taken."""
        letter = Letter(text, _malformed)
        match letter.event:
            case "media":
                letter.exactly("media")
                payload = letter.text(letter.inner("media", "payload")["payload"], "media.payload")
                return self._audio(base64_bytes(payload, _invalid))
            case "mark":
                letter.exactly("mark")
                return Mark(letter.text(letter.inner("mark", "name")["name"], "mark.name"))
            case "clear":
                letter.exactly()
                return Clear()
        raise _malformed(f"unknown event {letter.event!r}")

    def _audio(self, payload: bytes) -> FromServer:
        if self._takes is Takes.FILES:
            return self._file(payload)
        samples, rest = divmod(len(payload), self.plays.width)
        seconds = samples / self.plays.rate
        if rest or not SHORTEST <= seconds <= LONGEST:
            raise _invalid(f"{len(payload)} bytes are not 20 ms to 30 s of {ENCODINGS[self.plays]}")
        return Media(payload)

    def _file(self, payload: bytes) -> FromServer:
        """In the mode `mp3`, which is the one that a document gets when it names none."""
        now = self._clock()
        if now - self._last_file < 1.0:
            raise Refused(Fault.RATE_LIMIT, "more than one media message a second in the mode mp3")
        self._last_file = now
        if not is_mp3(payload):
            raise _invalid("no MP3, and the document asked for the mode mp3")
        # It would be played; the simulated telephone has no decoder.
        return Media(b"")

    def complaint(self, error: CarrierError) -> str | None:
        title = _TITLES.get(error.code)
        if title is None:
            return None
        return self._event("error", payload={"code": int(error.code), "title": title, "detail": error.message})

    def _event(self, event: str, **body: object) -> str:
        self._sequence += 1
        return json.dumps({"event": event, "sequence_number": str(self._sequence), "stream_id": self.stream_id, **body})


def is_mp3(payload: bytes) -> bool:
    """An ID3 tag or the header of an MPEG frame of layer III."""
    if payload.startswith(b"ID3"):
        return True
    if len(payload) < 4 or payload[0] != 0xFF or payload[1] & 0xE6 != 0xE2:
        return False
    return payload[2] >> 4 not in (0, 15) and payload[2] >> 2 & 3 != 3


def _malformed(what: str) -> Refused:
    return Refused(Fault.MALFORMED_FRAME, what)


def _invalid(what: str) -> Refused:
    return Refused(Fault.INVALID_MEDIA, what)
