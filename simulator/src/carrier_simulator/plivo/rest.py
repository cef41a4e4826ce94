"""Plivo's REST API, as much of it as places and steers calls.

https://www.plivo.com/docs/voice/api/call
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from carrier_simulator.api import E164, Exchange, basic_credentials, json_fields_of, same
from carrier_simulator.call import PhoneCall
from carrier_simulator.plivo.dialect import bare, status_of
from carrier_simulator.reading import is_web_url
from carrier_simulator.terms import Callback, CallStatus, Document

_SIMULATED = frozenset({"from", "to", "answer_url", "answer_method", "hangup_url", "hangup_method", "ring_timeout"})
_WITHOUT_EFFECT = frozenset(
    {
        *("ring_method", "fallback_url", "fallback_method", "caller_name", "time_limit", "callback_method"),
        *("machine_detection_time", "machine_detection_method", "error_if_parent_not_found"),
    }
)
"""Names that say something else only when they come with one that is not simulated, or when something goes wrong that
does not here."""


class PlivoExchange(Exchange, Protocol):
    auth_id: str
    auth_token: str


@dataclass(frozen=True, slots=True)
class _ApiError(Exception):
    status: int
    message: str

    def response(self) -> web.Response:
        return web.json_response(_answer(error=self.message), status=self.status)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestApi:
    def __init__(self, exchange: PlivoExchange) -> None:
        self._exchange = exchange

    def routes(self) -> list[web.RouteDef]:
        account = "/v1/Account/{account}/"
        calls = f"{account}Call/"
        return [
            web.get(account, self._checked(self._account)),
            web.get(f"{account}Number/", self._checked(self._numbers)),
            web.get(f"{account}Application/", self._checked(self._applications)),
            web.post(calls, self._checked(self._create)),
            web.get(calls + "{call}/", self._checked(self._show)),
            web.post(calls + "{call}/", self._checked(self._transfer)),
            web.delete(calls + "{call}/", self._checked(self._hang_up)),
        ]

    async def _account(self, _: web.Request) -> web.StreamResponse:
        """https://www.plivo.com/docs/account/api/account"""
        return web.json_response({"auth_id": self._exchange.auth_id, "name": "Simulated", "state": None})

    async def _numbers(self, _: web.Request) -> web.StreamResponse:
        """https://www.plivo.com/docs/numbers/api/account-phone-number"""
        listed = [
            {"number": number.removeprefix("+"), "application": self._uri(index), "voice_enabled": True}
            for index, number in enumerate(self._exchange.numbers)
        ]
        return web.json_response({"api_id": str(uuid.uuid4()), "objects": listed})

    async def _applications(self, _: web.Request) -> web.StreamResponse:
        """https://www.plivo.com/docs/account/api/application"""
        listed = [
            {"app_id": str(index), "app_name": "Simulated", "answer_url": url, "resource_uri": self._uri(index)}
            for index, url in enumerate(self._exchange.numbers.values())
        ]
        return web.json_response({"api_id": str(uuid.uuid4()), "objects": listed})

    def _uri(self, index: int) -> str:
        return f"/v1/Account/{self._exchange.auth_id}/Application/{index}/"

    def _checked(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                self._authorise(request)
                return await handler(request)
            except _ApiError as error:
                return error.response()
            except ValueError as error:
                return _ApiError(400, str(error)).response()

        return handle

    def _authorise(self, request: web.Request) -> None:
        user, password = basic_credentials(request)
        if not same(user, self._exchange.auth_id) & same(password, self._exchange.auth_token):
            raise _ApiError(401, "authentication failed")
        if request.match_info["account"] != self._exchange.auth_id:
            raise _ApiError(404, "not found")

    async def _create(self, request: web.Request) -> web.Response:
        fields = await json_fields_of(request)
        unknown = sorted(fields.keys() - _SIMULATED - _WITHOUT_EFFECT)
        if unknown:
            raise _ApiError(400, f"not simulated: {', '.join(unknown)}")
        numbers = ["+" + bare(fields.get(name, "")) for name in ("to", "from")]
        if not all(E164.fullmatch(number) for number in numbers):
            raise _ApiError(400, "from and to must be numbers in E.164 format")
        document = Document(_url(fields, "answer_url"), _method(fields, "answer_method"))
        timeout = fields.get("ring_timeout", "120")
        if not timeout.isdecimal():
            raise _ApiError(400, "ring_timeout must be a number of seconds")
        callback = None
        if fields.get("hangup_url"):
            callback = Callback(_url(fields, "hangup_url"), _method(fields, "hangup_method"))
        call = self._exchange.dial(numbers[0], numbers[1], document, float(timeout), callback)
        return web.json_response(_answer(message="call fired", request_uuid=call.sid), status=201)

    async def _show(self, request: web.Request) -> web.Response:
        call = self._exchange.calls.get(request.match_info["call"])
        if call is None:
            raise _ApiError(404, "not found")
        return web.json_response(_answer(**resource(call)))

    async def _transfer(self, request: web.Request) -> web.Response:
        call = self._live_call(request)
        fields = await json_fields_of(request)
        if fields.get("legs", "aleg") != "aleg":
            raise _ApiError(400, "only the A leg is simulated")
        document = Document(_url(fields, "aleg_url"), _method(fields, "aleg_method"))
        if not call.answered.has_come():
            raise _ApiError(400, "the call has not been answered")
        call.order(document)
        return web.json_response(_answer(message="transfer initiated", call_uuids=[call.sid]), status=202)

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = self._live_call(request)
        call.order(CallStatus.COMPLETED if call.answered.has_come() else CallStatus.CANCELED)
        return web.Response(status=204)

    def _live_call(self, request: web.Request) -> PhoneCall:
        call = self._exchange.calls.get(request.match_info["call"])
        if call is None or call.is_over:
            raise _ApiError(404, "not found")
        return call


def _answer(**fields: object) -> dict[str, object]:
    return {"api_id": str(uuid.uuid4()), **fields}


def _url(fields: Mapping[str, str], name: str) -> str:
    url = fields.get(name, "")
    if not is_web_url(url):
        raise _ApiError(400, f"{name} parameter is not a valid url")
    return url


def _method(fields: Mapping[str, str], name: str) -> str:
    method = fields.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise _ApiError(400, f"{name} must be GET or POST")
    return method


def resource(call: PhoneCall) -> dict[str, object]:
    """A call as the API shows it."""
    return {
        "call_uuid": call.sid,
        "call_direction": call.direction,
        "from_number": bare(call.from_),
        "to_number": bare(call.to),
        "call_state": status_of(call),
        "call_duration": call.duration,
    }
