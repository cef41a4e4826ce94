"""Twilio's media stream messages: reads the server's with no mercy, writes the carrier's. Pure.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.sounds import MULAW
from carrier_simulator.wire import Clear, FromServer, Letter, Mark, Media, base64_bytes

TEN_MINUTES = 600.0


class TwilioWire:
    """One stream's messages; numbers are strings, as Twilio's are."""

    speaks = plays = MULAW
    echoes = False
    buffer_seconds = TEN_MINUTES

    def __init__(self, account_sid: str, call_sid: str, stream_sid: str, parameters: Mapping[str, str]) -> None:
        self.stream_id = stream_sid
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._parameters = parameters
        self._sequence = 0
        self._chunk = 0

    def opening(self) -> Sequence[str]:
        return (json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}), self._start())

    def _start(self) -> str:
        start = {
            "accountSid": self._account_sid,
            "streamSid": self.stream_id,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(self._parameters),
        }
        return self._event("start", start=start)

    def media(self, payload: bytes, milliseconds: int) -> str:
        self._sequence += 1
        self._chunk += 1
        # Fifty times a second for each of many calls: built by hand, half a load test's time otherwise.
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{milliseconds}","payload":"'
            f'{base64.b64encode(payload).decode("ascii")}"}},"streamSid":"{self.stream_id}"}}'
        )

    def echo(self, payload: bytes, milliseconds: int) -> str:
        raise NotImplementedError("a bidirectional stream has the inbound track alone")

    def dtmf(self, digit: str) -> str:
        return self._event("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        return self._event("mark", mark={"name": name})

    def cleared(self, marks: Sequence[str]) -> Sequence[str]:
        return [self.mark(name) for name in marks]

    def closing(self) -> Sequence[str]:
        return (self._event("stop", stop={"accountSid": self._account_sid, "callSid": self._call_sid}),)

    def read(self, text: str) -> FromServer:
        """Raise Refused (31951) for anything that is not to the letter one of the three documented messages."""
        letter = Letter(text, _wrong)
        match letter.event:
            case "media":
                letter.exactly("streamSid", "media")
                payload = letter.text(letter.inner("media", "payload")["payload"], "media.payload")
                result: FromServer = Media(base64_bytes(payload, _wrong))
            case "mark":
                letter.exactly("streamSid", "mark")
                result = Mark(letter.text(letter.inner("mark", "name")["name"], "mark.name"))
            case "clear":
                letter.exactly("streamSid")
                result = Clear()
            case _:
                raise _wrong(f"unknown event {letter.event!r}")
        if letter.message["streamSid"] != self.stream_id:
            raise _wrong(f"streamSid {letter.message['streamSid']!r} is not this stream's")
        return result

    def complaint(self, error: CarrierError) -> str | None:
        return None

    def _event(self, event: str, **body: object) -> str:
        self._sequence += 1
        return json.dumps({"event": event, "sequenceNumber": str(self._sequence), **body, "streamSid": self.stream_id})


def _wrong(what: str) -> Refused:
    return Refused(Fault.STREAM_MESSAGE, what)
