"""Plivo's audio streaming messages: reads the server's with no mercy, writes the carrier's. Pure.

https://www.plivo.com/docs/voice/audio-streaming/audio-streaming
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.sounds import LINEAR_8_LITTLE, LINEAR_16_LITTLE, MULAW, Sound
from carrier_simulator.verbs import Stream, Takes
from carrier_simulator.wire import Clear, Digits, FromServer, Letter, Mark, Media, base64_bytes

CONTENT_TYPES: Mapping[Sound, str] = {
    MULAW: "audio/x-mulaw",
    LINEAR_8_LITTLE: "audio/x-l16",
    LINEAR_16_LITTLE: "audio/x-l16",
}
LONGEST_MESSAGE = 65_536
"""Bytes."""
QUEUE_SECONDS = 60.0
_KEYS = frozenset("0123456789*#")
_GOES_ON = frozenset({Fault.STREAM_MESSAGE, Fault.STREAM_FULL})


@dataclass(frozen=True, slots=True)
class Ids:
    """What a stream's messages tell about the call."""

    stream_id: str
    call_id: str
    account_id: str


class PlivoWire:
    """One stream's messages. `epoch` is Unix milliseconds of the stream's start: the zero of its timestamps."""

    echoes = False
    buffer_seconds = QUEUE_SECONDS

    def __init__(self, ids: Ids, stream: Stream, epoch: int) -> None:
        self.stream_id = ids.stream_id
        self.speaks, self.plays = stream.speaks, stream.plays
        self._ids = ids
        self._takes = stream.takes
        self._epoch = epoch
        pairs = ";".join(f"{name}={value}" for name, value in stream.parameters.items())
        self._extra_headers = pairs or "{}"
        self._sequence = 0
        self._chunk = 0

    def opening(self) -> Sequence[str]:
        self._sequence += 1
        start = {
            "callId": self._ids.call_id,
            "streamId": self.stream_id,
            "accountId": self._ids.account_id,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": CONTENT_TYPES[self.speaks], "sampleRate": self.speaks.rate},
        }
        message = {"sequenceNumber": self._sequence, "event": "start", "start": start}
        return (json.dumps({**message, "extra_headers": self._extra_headers}),)

    def media(self, payload: bytes, milliseconds: int) -> str:
        self._chunk += 1
        media = {
            "track": "inbound",
            "timestamp": str(self._epoch + milliseconds),
            "chunk": self._chunk,
            "payload": base64.b64encode(payload).decode("ascii"),
        }
        return self._event("media", media=media, extra_headers=self._extra_headers)

    def echo(self, payload: bytes, milliseconds: int) -> str:
        raise NotImplementedError("a bidirectional stream has the inbound track alone")

    def dtmf(self, digit: str) -> str:
        dtmf = {"track": "inbound", "digit": digit, "timestamp": str(self._epoch)}
        return self._event("dtmf", dtmf=dtmf, extra_headers=self._extra_headers)

    def mark(self, name: str) -> str:
        return self._event("playedStream", name=name)

    def cleared(self, marks: Sequence[str]) -> Sequence[str]:
        """A checkpoint in the dropped audio has not been played, and is never reported."""
        return (self._event("clearedAudio"),)

    def closing(self) -> Sequence[str]:
        """Nothing: the socket closes."""
        return ()

    def read(self, text: str) -> FromServer:
        """Raise Refused (31951) for anything that is not to the letter one of the four documented messages."""
        if len(text.encode()) > LONGEST_MESSAGE:
            raise _wrong(f"a message of more than {LONGEST_MESSAGE} bytes")
        if self._takes is Takes.NOTHING:
            raise _wrong("the stream is not bidirectional")
        letter = Letter(text, _wrong)
        match letter.event:
            case "playAudio":
                letter.exactly("media")
                return self._audio(letter)
            case "checkpoint":
                letter.exactly("streamId", "name")
                self._own(letter)
                return Mark(letter.text(letter.message["name"], "name"))
            case "clearAudio":
                letter.exactly("streamId")
                self._own(letter)
                return Clear()
            case "sendDTMF":
                letter.exactly("dtmf")
                digits = letter.text(letter.message["dtmf"], "dtmf")
                if not digits or not _KEYS.issuperset(digits):
                    raise _wrong(f"{digits!r} are not keypad digits")
                return Digits(digits)
        raise _wrong(f"unknown event {letter.event!r}")

    def _own(self, letter: Letter) -> None:
        if letter.message["streamId"] != self.stream_id:
            raise _wrong(f"streamId {letter.message['streamId']!r} is not this stream's")

    def _audio(self, letter: Letter) -> Media:
        media = letter.inner("media", "contentType", "sampleRate", "payload")
        content_type = letter.text(media["contentType"], "media.contentType")
        wanted = CONTENT_TYPES[self.plays], self.plays.rate
        # Plivo's own pages write the rate now as a number, now as a string.
        rate = media["sampleRate"]
        if (content_type, str(rate)) != (wanted[0], str(wanted[1])) or isinstance(rate, bool):
            raise _wrong(f"{content_type} at {rate}, where the stream has {wanted[0]} at {wanted[1]}")
        payload = base64_bytes(letter.text(media["payload"], "media.payload"), _wrong)
        if len(payload) % self.plays.width:
            raise _wrong("the payload ends in the middle of a sample")
        return Media(payload)

    def complaint(self, error: CarrierError) -> str | None:
        if error.code not in _GOES_ON:
            return None
        return self._event("incorrectPayload", reason=error.message)

    def _event(self, event: str, **body: object) -> str:
        self._sequence += 1
        return json.dumps({"sequenceNumber": self._sequence, "event": event, "streamId": self.stream_id, **body})


def _wrong(what: str) -> Refused:
    return Refused(Fault.STREAM_MESSAGE, what)
