"""A tiny ACME: its dialect of the simulator, and its REST API."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from aiohttp import web

from carrier_simulator import CallStatus, CarrierError, CarrierSimulator, Document, Fault
from carrier_simulator.api import same
from carrier_simulator.faults import Refused
from carrier_simulator.record import CallRecord
from carrier_simulator.simulator import World, WorldOptions
from carrier_simulator.verbs import Connect, Dial, Gather, Hangup, Pause, Redirect, Reject, Say, Stream, Target, Verb
from carrier_simulator.web import Form, Manner
from carrier_simulator.wire import Clear, FromServer, Letter, Mark, Media, Wire, base64_bytes

HEADER = "X-Acme-Secret"


class AcmeSigner:
    """Its secret, in each request."""

    def request(self, secret: str, method: str, url: str, form: Form, body: bytes) -> Mapping[str, str]:
        return {HEADER: secret}

    def handshake(self, secret: str, url: str) -> Mapping[str, str]:
        return {HEADER: secret}


class AcmeDialect:
    name = "ACME"
    account_id = "acme-account"

    def call_id(self) -> str:
        return f"call-{secrets.token_hex(8)}"

    def form(self, call: CallRecord) -> Form:
        return [
            ("call", call.sid),
            ("account", self.account_id),
            ("from", call.from_),
            ("to", call.to),
            ("status", call.status.value),
        ]

    def gathered(self, digits: str) -> Form:
        return [("digits", digits)]

    def dialled(self, leg_id: str, status: CallStatus, seconds: int) -> Form:
        return [("dial", status.value)]

    def leg_notice(self, call: CallRecord, leg_id: str, address: str, status: CallStatus) -> Form:
        return [("call", call.sid), ("progress", status.value)]

    def hung_up(self) -> dict[str, str]:
        return {"status": CallStatus.COMPLETED.value}

    def caller_id_fault(self, call: CallRecord, caller_id: str) -> CarrierError | None:
        return None

    def streamed(self, stream_id: str) -> Form:
        return []

    def stream_notice(self, call: CallRecord, stream_id: str, event: str) -> Form:
        return self.form(call)

    def notice(self, call: CallRecord, sequence: int) -> Form:
        return self.form(call)

    def parse(self, body: bytes, content_type: str) -> Sequence[Verb]:
        """What comes inside of a REST request has no type of its own."""
        if content_type.partition(";")[0] not in ("application/json", "text/xml"):
            raise Refused(Fault.CONTENT_TYPE, content_type)
        try:
            return [_verb(**order) for order in json.loads(body)]
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(Fault.DOCUMENT_PARSE, str(error)) from error

    def wire(self, call: CallRecord, stream: Stream) -> Wire:
        return AcmeWire(call.sid, self.account_id, stream)


def _verb(do: str, **order: Any) -> Verb:
    match do:
        case "say":
            return Say(order["say"])
        case "hangup":
            return Hangup()
        case "reject":
            return Reject("rejected")
        case "stream":
            return Connect(Stream(order["url"]))
        case "hold":
            return Pause(order["seconds"])
        case "go":
            return Redirect(order["url"], "POST")
        case "ask":
            url, say, digits = order["url"], order["say"], order["digits"]
            return Gather((Say(say),), url, "POST", digits, "#", 10.0, 10.0, asks_when_empty=True)
        case "dial":
            told = frozenset({"ringing", "answered"})
            target = Target(order["number"], callback=order.get("progress", ""), callback_events=told)
            return Dial((target,), order.get("url", ""), "POST", order["timeout"], order.get("from", ""))
    raise KeyError(do)


class AcmeWire:
    """One stream's messages."""

    echoes = False
    buffer_seconds = 60.0

    def __init__(self, call_id: str, account_id: str, stream: Stream) -> None:
        self.stream_id = f"stream-{secrets.token_hex(8)}"
        self.speaks, self.plays = stream.speaks, stream.plays
        self._ids = {"call": call_id, "stream": self.stream_id, "account": account_id}

    def opening(self) -> Sequence[str]:
        return [json.dumps({"event": "start", "start": {**self._ids, "format": {"encoding": "mulaw", "rate": 8000}}})]

    def media(self, payload: bytes, milliseconds: int) -> str:
        return json.dumps({"event": "media", "media": {"at": milliseconds, "payload": b64encode(payload).decode()}})

    def echo(self, payload: bytes, milliseconds: int) -> str:
        raise NotImplementedError

    def dtmf(self, digit: str) -> str:
        return json.dumps({"event": "dtmf", "dtmf": {"digit": digit}})

    def mark(self, name: str) -> str:
        return json.dumps({"event": "mark", "name": name})

    def cleared(self, marks: Sequence[str]) -> Sequence[str]:
        return [self.mark(name) for name in marks]

    def closing(self) -> Sequence[str]:
        return [json.dumps({"event": "stop", "reason": "hangup"})]

    def read(self, text: str) -> FromServer:
        letter = Letter(text, _wrong)
        match letter.event:
            case "media":
                letter.exactly("media")
                payload = letter.inner("media", "payload")["payload"]
                return Media(base64_bytes(letter.text(payload, "payload"), _wrong))
            case "mark":
                letter.exactly("name")
                return Mark(letter.text(letter.message["name"], "name"))
            case "clear":
                letter.exactly()
                return Clear()
        raise _wrong(f"unknown event {letter.event!r}")

    def complaint(self, error: CarrierError) -> str | None:
        return None


def _wrong(what: str) -> Refused:
    return Refused(Fault.STREAM_MESSAGE, what)


class AcmeSimulator(CarrierSimulator):
    def __init__(self, **world: Unpack[WorldOptions]) -> None:
        self.secret = secrets.token_hex(16)
        manner = Manner(AcmeSigner(), "ACME", "ACME-Streams")
        super().__init__(AcmeDialect(), manner, self.secret, World(**world))

    def routes(self) -> Sequence[web.RouteDef]:
        one = "/calls/{call}"
        return [
            web.get("/account", self._show),
            *(web.route(verb, one, self._show) for verb in ("GET", "PUT", "DELETE")),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        if not same(request.headers.get("Authorization", ""), f"Bearer {self.secret}"):
            return web.json_response({"error": "wrong secret"}, status=401)
        if request.path == "/account":
            numbers = [{"number": number, "url": url} for number, url in self.numbers.items()]
            return web.json_response({"name": "Simulated", "numbers": numbers})
        call = self.calls.get(request.match_info["call"])
        if call is None or call.is_over:
            return web.json_response({"error": "no such call"}, status=404)
        if request.method == "PUT":
            call.order(Document(inline=(await request.json())["document"]))
        elif request.method == "DELETE":
            call.order(CallStatus.COMPLETED if call.answered.has_come() else CallStatus.CANCELED)
        return web.json_response({"status": call.status.value})
