"""Somebody with a connect_url who is not a whole carrier: single requests and sockets, signed or not, as told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from carrier_simulator.twilio.signing import sign
from tests.integration.harness import TWILIO_TOKEN

Form = Sequence[tuple[str, str]]
CALL_SID = "CA" + "1" * 32
STREAM_SID = "MZ" + "2" * 32
FORM: Form = (("CallSid", CALL_SID), ("From", "+15557654321"), ("To", "+15551234567"))


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    content_type: str
    text: str


def document_url(connect_url: str) -> str:
    """As the documents say: the connect_url with http for ws."""
    return connect_url.replace("ws", "http", 1)


async def fetch(
    session: aiohttp.ClientSession,
    connect_url: str,
    form: Form = (),
    method: str = "POST",
    token: str = TWILIO_TOKEN,
    headers: dict[str, str] | None = None,
    **request: Any,
) -> Page:
    """Ask for the answer document, correctly signed unless `headers` bring another signature or `token` is empty."""
    url = document_url(connect_url)
    if method == "GET" and form:
        url += "?" + urlencode(form)
    signature = {"X-Twilio-Signature": sign(token, url, form if method == "POST" else ())} if token else {}
    body = {"data": aiohttp.FormData(list(form))} if method == "POST" and form else {}
    async with session.request(
        method, URL(url, encoded=True), headers=signature | (headers or {}), **(body | request)
    ) as response:
        return Page(response.status, response.headers.get("Content-Type", ""), await response.text())


async def open_socket(
    session: aiohttp.ClientSession, connect_url: str, token: str = TWILIO_TOKEN, headers: dict[str, str] | None = None
) -> aiohttp.ClientWebSocketResponse:
    signature = {"X-Twilio-Signature": sign(token, connect_url)} if token else {}
    return await session.ws_connect(URL(connect_url, encoded=True), headers=signature | (headers or {}))


async def socket_status(session: aiohttp.ClientSession, connect_url: str, **options: Any) -> int:
    """101 when the socket opens (it is closed again), else the HTTP status of the refusal."""
    try:
        socket = await open_socket(session, connect_url, **options)
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    await socket.close()
    return 101


async def start_stream(
    socket: aiohttp.ClientWebSocketResponse, call_sid: str = CALL_SID, parameters: dict[str, str] | None = None
) -> None:
    """What Twilio says first."""
    await socket.send_str(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    start = {
        "accountSid": "AC" + "3" * 32,
        "streamSid": STREAM_SID,
        "callSid": call_sid,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters or {},
    }
    await socket.send_str(
        json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": STREAM_SID})
    )
