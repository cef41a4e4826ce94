"""Telnyx's REST API, as much of it as places and steers calls.

https://developers.telnyx.com/api-reference/texml-rest-commands/update-call
https://developers.telnyx.com/api-reference/call-commands/hangup-call
https://developers.telnyx.com/api-reference/call-commands/speak-text
https://developers.telnyx.com/api-reference/call-commands/streaming-start
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from aiohttp import web

from carrier_simulator.api import E164, Exchange, fields_of, json_fields_of, same
from carrier_simulator.call import PhoneCall
from carrier_simulator.faults import Refused
from carrier_simulator.reading import Element, is_web_url
from carrier_simulator.telnyx.dialect import call_control_id
from carrier_simulator.telnyx.texml import parse_texml, read_stream
from carrier_simulator.terms import Callback, CallStatus, Document
from carrier_simulator.verbs import Stream

_SPEAK_FIELDS = frozenset(
    {"payload", "payload_type", "service_level", "stop", "voice", "voice_settings", "language", "client_state"}
    | {"command_id", "loop", "target_legs"}
)
_STREAM_FIELDS = frozenset(
    {"stream_url", "stream_track", "stream_codec", "stream_bidirectional_mode", "stream_bidirectional_codec"}
    | {"stream_bidirectional_sampling_rate", "client_state", "command_id"}
)
"""Of more that Telnyx has."""
_LONGEST_SPEECH = 3000
_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})


class TelnyxExchange(Exchange, Protocol):
    account_sid: str
    application_sid: str
    api_key: str
    knows_texml: bool


@dataclass(frozen=True, slots=True)
class _ApiError(Exception):
    status: int
    code: str
    title: str
    detail: str

    def response(self) -> web.Response:
        error = {"code": self.code, "title": self.title, "detail": self.detail}
        return web.json_response({"errors": [error]}, status=self.status)


def _invalid(detail: str) -> _ApiError:
    return _ApiError(422, "10015", "Bad Request", detail)


_GONE = _ApiError(422, "90018", "Call has already ended", "This call is no longer active.")
Handler = Callable[[web.Request], Awaitable[web.Response]]


class RestApi:
    def __init__(self, exchange: TelnyxExchange) -> None:
        self._exchange = exchange
        self._commands: set[tuple[str, str]] = set()
        """Ids of commands that a call has had: Telnyx ignores another one with the same."""

    def routes(self) -> list[web.RouteDef]:
        calls = "/v2/texml/Accounts/{account}/Calls"
        actions = "/v2/calls/{call}/actions"
        return [
            web.get("/v2/phone_numbers", self._checked(self._numbers)),
            web.get("/v2/texml_applications", self._checked(self._applications)),
            web.post(calls, self._checked(self._create)),
            web.get(calls + "/{call}", self._checked(self._show)),
            web.post(calls + "/{call}", self._checked(self._update)),
            web.post("/v2/texml/calls/{call}/update", self._checked(self._update)),
            web.post(actions + "/hangup", self._checked(self._hang_up)),
            web.post(actions + "/speak", self._checked(self._speak)),
            web.post(actions + "/transfer", self._checked(self._transfer)),
            web.post(actions + "/streaming_start", self._checked(self._start_stream)),
        ]

    async def _numbers(self, _: web.Request) -> web.Response:
        """https://developers.telnyx.com/api-reference/phone-number-configurations/list-phone-numbers"""
        listed = [
            {"id": str(index), "phone_number": number, "status": "active", "connection_id": f"application-{index}"}
            for index, number in enumerate(self._exchange.numbers)
        ]
        return web.json_response({"data": listed, "meta": {"total_results": len(listed)}})

    async def _applications(self, _: web.Request) -> web.Response:
        """https://developers.telnyx.com/api-reference/texml-applications/list-all-texml-applications"""
        listed = [
            {"id": f"application-{index}", "friendly_name": "Simulated", "voice_url": url, "voice_method": "post"}
            for index, url in enumerate(self._exchange.numbers.values())
        ]
        return web.json_response({"data": listed, "meta": {"total_results": len(listed)}})

    def _checked(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                self._authorise(request)
                return await handler(request)
            except _ApiError as error:
                return error.response()
            except ValueError as error:
                return _ApiError(400, "10015", "Bad Request", str(error)).response()

        return handle

    def _authorise(self, request: web.Request) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(key, self._exchange.api_key):
            raise _ApiError(401, "10009", "Authentication failed", "Could not find any usable credentials.")
        if request.match_info.get("account", self._exchange.account_sid) != self._exchange.account_sid:
            raise _ApiError(404, "10005", "Resource not found", "There is no such account.")

    async def _create(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        to, from_ = fields.get("To", ""), fields.get("From", "")
        for name, number in (("To", to), ("From", from_)):
            if not E164.fullmatch(number):
                raise _invalid(f"The {name} number is not in E.164 format.")
        if fields.get("ApplicationSid") != self._exchange.application_sid:
            raise _invalid("ApplicationSid names no TeXML application of yours.")
        document = _document(fields)
        if document is None:
            raise _invalid("Url or Texml is required.")
        timeout = fields.get("Timeout", "30")
        if not timeout.isdecimal() or not 5 <= int(timeout) <= 120:
            raise _invalid("Timeout must be from 5 to 120 seconds.")
        call = self._exchange.dial(to, from_, document, float(timeout), _callback(fields))
        return web.json_response({"from": from_, "to": to, "status": "queued", "call_sid": call.sid})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(resource(self._texml_call(request)))

    async def _update(self, request: web.Request) -> web.Response:
        call = self._texml_call(request)
        fields = await fields_of(request)
        status, document = fields.get("Status", ""), _document(fields)
        if status not in ("", CallStatus.COMPLETED):
            raise _invalid("Status can only be set to completed.")
        if call.is_over:
            raise _GONE
        if status:
            call.order(_ended(call))
        elif document is None:
            raise _invalid("Status, Url or Texml is required.")
        elif not call.answered.has_come():
            raise _invalid("The call has not been answered.")
        else:
            call.order(document)
        return web.json_response(resource(call))

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = self._live_call(request)
        call.order(_ended(call))
        return web.json_response({"data": {"result": "ok"}})

    async def _speak(self, request: web.Request) -> web.Response:
        call = self._live_call(request)
        fields = await json_fields_of(request)
        if unknown := fields.keys() - _SPEAK_FIELDS:
            raise _invalid(f"{', '.join(sorted(unknown))}: no such field.")
        if not 1 <= len(fields.get("payload", "")) <= _LONGEST_SPEECH:
            raise _invalid("payload must have 1 to 3000 characters.")
        if not fields.get("voice"):
            raise _invalid("voice is required.")
        if fields.get("payload_type", "text") not in ("text", "ssml"):
            raise _invalid("payload_type must be text or ssml.")
        if not call.answered.has_come():
            raise _invalid("The call has not been answered.")
        command = (call.sid, fields.get("command_id", ""))
        if not command[1] or command not in self._commands:
            self._commands.add(command)
            call.speak(fields["payload"])
        return web.json_response({"data": {"result": "ok"}})

    async def _transfer(self, request: web.Request) -> web.Response:
        call = self._live_call(request)
        to = (await fields_of(request)).get("to", "")
        if not E164.fullmatch(to) and not to.startswith(("sip:", "sips:")):
            raise _invalid("to must be a number in E.164 format or a SIP URI.")
        if not call.answered.has_come():
            raise _invalid("The call has not been answered.")
        call.order(Document(inline=f"<Response><Dial>{escape(to)}</Dial></Response>"))
        return web.json_response({"data": {"result": "ok"}})

    async def _start_stream(self, request: web.Request) -> web.Response:
        """It runs beside whatever the call's document does."""
        call = self._live_call(request)
        fields = await json_fields_of(request)
        if unknown := fields.keys() - _STREAM_FIELDS:
            raise _invalid(f"{', '.join(sorted(unknown))}: no such field, or not simulated.")
        if not call.answered.has_come():
            raise _invalid("The call has not been answered.")
        if any(not stream.ended.has_come() for stream in call.streams):
            raise _invalid("The call is streamed already.")
        stream = _stream(fields)
        command = (call.sid, fields.get("command_id", ""))
        if not command[1] or command not in self._commands:
            self._commands.add(command)
            call.start_stream(stream)
        return web.json_response({"data": {"result": "ok"}})

    def _texml_call(self, request: web.Request) -> PhoneCall:
        call = self._exchange.calls.get(request.match_info["call"])
        if call is None or not self._exchange.knows_texml:
            raise _ApiError(404, "10005", "Resource not found", "There is no such call.")
        return call

    def _live_call(self, request: web.Request) -> PhoneCall:
        """By the id that the stream tells."""
        wanted = request.match_info["call"]
        for call in self._exchange.calls.values():
            if call_control_id(call.sid) == wanted:
                if call.is_over:
                    raise _GONE
                return call
        raise _ApiError(404, "10005", "Resource not found", "There is no such call.")


def _ended(call: PhoneCall) -> CallStatus:
    return CallStatus.COMPLETED if call.answered.has_come() else CallStatus.CANCELED


def _method(fields: Mapping[str, str], name: str) -> str:
    method = fields.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise _invalid(f"{name} must be GET or POST.")
    return method


def _document(fields: Mapping[str, str]) -> Document | None:
    url, texml = fields.get("Url", ""), fields.get("Texml", "")
    if url and not is_web_url(url):
        raise _invalid("Url is not a valid URL.")
    if not url and not texml:
        return None
    if texml:
        try:
            parse_texml(texml.encode(), "text/xml")
        except Refused as refused:
            raise _invalid(f"Texml: {refused}") from refused
    return Document(url, _method(fields, "Method"), "" if url else texml)


_STREAM_ATTRIBUTES = {
    "stream_url": "url",
    "stream_track": "track",
    "stream_codec": "codec",
    "stream_bidirectional_mode": "bidirectionalMode",
    "stream_bidirectional_codec": "bidirectionalCodec",
    "stream_bidirectional_sampling_rate": "bidirectionalSamplingRate",
}
"""The fields of the command, and the attributes of the noun that say the same."""


def _stream(fields: Mapping[str, str]) -> Stream:
    given = {name: fields[field] for field, name in _STREAM_ATTRIBUTES.items() if field in fields}
    if urlsplit(given.get("url", "")).scheme not in ("ws", "wss"):
        raise _invalid("stream_url must be a WebSocket URL.")
    try:
        return read_stream(Element("Stream", given))
    except Refused as refused:
        raise _invalid(str(refused)) from refused


def _callback(fields: Mapping[str, str]) -> Callback | None:
    url = fields.get("StatusCallback", "")
    if not url:
        return None
    events = frozenset(fields.get("StatusCallbackEvent", "completed").split())
    if not is_web_url(url) or not events <= _EVENTS:
        raise _invalid("StatusCallback or StatusCallbackEvent is not valid.")
    return Callback(url, _method(fields, "StatusCallbackMethod"), events)


def resource(call: PhoneCall) -> dict[str, object]:
    """A call as the TeXML API shows it."""
    return {
        "account_sid": call.account_sid,
        "sid": call.sid,
        "from": call.from_,
        "to": call.to,
        "direction": call.direction,
        "status": call.status.value,
        "duration": None if call.duration is None else str(call.duration),
        "uri": f"/v2/texml/Accounts/{call.account_sid}/Calls/{call.sid}",
    }
