"""The carrier's REST API, as much of it as places and steers calls.

https://www.twilio.com/docs/voice/api/call-resource
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Protocol

from aiohttp import web
from multidict import MultiMapping

from carrier_simulator.api import E164, Exchange, basic_credentials, same
from carrier_simulator.call import PhoneCall
from carrier_simulator.reading import is_web_url
from carrier_simulator.terms import Callback, CallStatus, Document
from carrier_simulator.twilio.dialect import API_VERSION, DIRECTIONS

_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
_LONGEST_TWIML = 4000


class TwilioExchange(Exchange, Protocol):
    account_sid: str
    auth_token: str


@dataclass(frozen=True, slots=True)
class ApiError(Exception):
    status: int
    code: int
    message: str

    def response(self) -> web.Response:
        body = {
            "code": self.code,
            "message": self.message,
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }
        return web.json_response(body, status=self.status)


Handler = Callable[[web.Request], Awaitable[web.Response]]


class RestApi:
    def __init__(self, exchange: TwilioExchange) -> None:
        self._exchange = exchange

    def routes(self) -> list[web.RouteDef]:
        account = f"/{API_VERSION}/Accounts/{{account}}"
        base = f"{account}/Calls"
        return [
            web.get(account + ".json", self.checked(self._account)),
            web.get(account + "/IncomingPhoneNumbers.json", self.checked(self._numbers)),
            web.post(base + ".json", self.checked(self._create)),
            web.get(base + "/{sid}.json", self.checked(self._show)),
            web.post(base + "/{sid}.json", self.checked(self._update)),
        ]

    def checked(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                self._authorise(request)
                return await handler(request)
            except ApiError as error:
                return error.response()

        return handle

    def _authorise(self, request: web.Request) -> None:
        user, password = basic_credentials(request)
        exchange = self._exchange
        if not same(user, exchange.account_sid) & same(password, exchange.auth_token):
            raise ApiError(401, 20003, "Authenticate")
        if request.match_info["account"] != exchange.account_sid:
            raise ApiError(404, 20404, f"The requested resource {request.path} was not found")

    async def _account(self, _: web.Request) -> web.Response:
        """https://www.twilio.com/docs/iam/api/account"""
        sid = self._exchange.account_sid
        return web.json_response({"sid": sid, "friendly_name": "Simulated", "status": "active", "type": "Full"})

    async def _numbers(self, request: web.Request) -> web.Response:
        """https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource"""
        numbers = [
            {"sid": f"PN{index:032x}", "phone_number": number, "voice_url": url, "voice_method": "POST"}
            for index, (number, url) in enumerate(self._exchange.numbers.items())
        ]
        listed = numbers[: int(request.query.get("PageSize", "50"))]
        return web.json_response({"incoming_phone_numbers": listed, "page": 0, "page_size": 50})

    async def _create(self, request: web.Request) -> web.Response:
        form = texts(await request.post())
        to, from_ = form.get("To", ""), form.get("From", "")
        if not to:
            raise ApiError(400, 21201, "No 'To' number is specified")
        if not E164.fullmatch(to):
            raise ApiError(400, 21211, f"The phone number you are attempting to call, {to}, is not valid.")
        if not from_:
            raise ApiError(400, 21213, "No 'From' number is specified")
        if not E164.fullmatch(from_):
            raise ApiError(400, 21212, f"The source phone number provided, {from_}, is not valid.")
        document = _document(form, "Method")
        if document is None:
            raise ApiError(400, 21205, "Url parameter is required.")
        call = self._exchange.dial(to, from_, document, _ring_timeout(form), _callback(form))
        return web.json_response(resource(call), status=201)

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(resource(self._find(request)))

    async def _update(self, request: web.Request) -> web.Response:
        call = self._find(request)
        form = texts(await request.post())
        status = form.get("Status", "")
        document = _document(form, "Method")
        if status and status not in (CallStatus.COMPLETED, CallStatus.CANCELED):
            raise ApiError(400, 21218, f"Invalid Status: {status}")
        if call.is_over:
            raise ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == CallStatus.CANCELED and call.answered.has_come():
            raise ApiError(400, 21220, "Call is in-progress. Cannot cancel.")
        if document and not call.answered.has_come():
            raise ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status:
            # Ending a call that nobody answered yet cancels it, whichever word is used.
            call.order(CallStatus.COMPLETED if call.answered.has_come() else CallStatus.CANCELED)
        elif document:
            call.order(document)
        else:
            raise ApiError(400, 20001, "Nothing to update: Status, Url or Twiml is required")
        return web.json_response(resource(call))

    def _find(self, request: web.Request) -> PhoneCall:
        call = self._exchange.calls.get(request.match_info["sid"])
        if call is None:
            raise ApiError(404, 20404, f"The requested resource {request.path} was not found")
        return call


def texts(form: MultiMapping[str | bytes | bytearray | web.FileField]) -> MultiMapping[str]:
    if any(not isinstance(value, str) for value in form.values()):
        raise ApiError(400, 20001, "Files are not accepted")
    return form  # type: ignore[return-value]


def _url(form: MultiMapping[str], name: str) -> str:
    url = form.get(name, "")
    if url and not is_web_url(url):
        raise ApiError(400, 21205, f"Url is not a valid URL: {url}")
    return url


def _method(form: MultiMapping[str], name: str) -> str:
    method = form.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise ApiError(400, 20001, f"{name} must be GET or POST")
    return method


def _document(form: MultiMapping[str], method: str) -> Document | None:
    url, inline = _url(form, "Url"), form.get("Twiml", "")
    if len(inline) > _LONGEST_TWIML:
        raise ApiError(400, 20001, f"Twiml must have at most {_LONGEST_TWIML} characters")
    if not url and not inline:
        return None
    return Document(url, _method(form, method), "" if url else inline)


def _ring_timeout(form: MultiMapping[str]) -> float:
    text = form.get("Timeout", "60")
    if not text.isdecimal() or not 1 <= int(text) <= 600:
        raise ApiError(400, 20001, "Timeout must be a whole number of seconds from 1 to 600")
    return float(text)


def _callback(form: MultiMapping[str]) -> Callback | None:
    url = _url(form, "StatusCallback")
    events = frozenset(form.getall("StatusCallbackEvent", ["completed"]))
    if not events <= _EVENTS:
        raise ApiError(400, 21626, f"Invalid StatusCallbackEvent: {', '.join(sorted(events - _EVENTS))}")
    return Callback(url, _method(form, "StatusCallbackMethod"), events) if url else None


def resource(call: PhoneCall) -> dict[str, object]:
    """A call as the REST API shows it."""
    path = f"/{API_VERSION}/Accounts/{call.account_sid}/Calls/{call.sid}"
    created = format_datetime(call.created_date)
    # Twilio answers "initiated" to callbacks only; the resource says "queued" until it rings.
    status = CallStatus.QUEUED if call.status is CallStatus.INITIATED else call.status
    return {
        "sid": call.sid,
        "account_sid": call.account_sid,
        "parent_call_sid": None,
        "phone_number_sid": None,
        "to": call.to,
        "to_formatted": call.to,
        "from": call.from_,
        "from_formatted": call.from_,
        "status": status.value,
        "direction": DIRECTIONS[call.direction],
        "api_version": API_VERSION,
        "date_created": created,
        "date_updated": created,
        "start_time": created if call.answered.has_come() else None,
        "end_time": created if call.is_over else None,
        "duration": None if call.duration is None else str(call.duration),
        "price": None,
        "price_unit": "USD",
        "answered_by": None,
        "annotation": None,
        "caller_name": None,
        "forwarded_from": None,
        "group_sid": None,
        "queue_time": "0",
        "trunk_sid": "",
        "uri": path + ".json",
        "subresource_uris": {
            name: f"{path}/{name.title()}.json" for name in ("notifications", "recordings", "streams")
        },
    }
