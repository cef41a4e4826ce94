"""Requests to a carrier's REST API: with a timeout, error responses as our errors, no secret in any error text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from connector.errors import (
    CarrierCallOver,
    ConnectorError,
    CredentialsRefused,
    FailedPrecondition,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

TIMEOUT = 5.0
"""Timeout of a request in seconds; the end of a call waits for it."""
_LONGEST_ANSWER = 64 * 1024
_LONGEST_COMPLAINT = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is empty if the response is not a JSON object."""

    status: int
    body: Mapping[str, Any]


class CarrierApi:
    """Client for one carrier's API at one origin. Call `start` before use and `close` after it."""

    def __init__(self, name: str, api_url: str, authorization: str, check: str, ended: str = "") -> None:
        """`name` and `check` (the settings to check) appear in error messages; `ended` is the carrier's error code for
        a call that has ended."""
        self._name = name
        self._api_url = api_url.rstrip("/")
        self._authorization = authorization
        self._check = check
        self._ended = ended
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": self._authorization, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, method: str, path: str, body: Mapping[str, str | int] | None = None) -> Answer:
        """Sends a request, with a JSON body unless `body` is None. Raises ConnectorError for every status except 2xx:
        NotFound for a 404, CarrierCallOver if the carrier says that the call has ended, FailedPrecondition if the
        carrier refuses the action in the call's present state."""
        return await self._send(method, path, None if body is None else aiohttp.JsonPayload(body))

    async def send_form(self, path: str, fields: Mapping[str, str]) -> Answer:
        """Like `send`: a POST with a form."""
        return await self._send("POST", path, aiohttp.FormData(fields))

    async def _send(self, method: str, path: str, body: aiohttp.JsonPayload | aiohttp.FormData | None) -> Answer:
        if self._session is None:
            raise RuntimeError(f"the client of {self._name}'s API has not been started")
        try:
            async with self._session.request(
                method, self._api_url + path, data=body, allow_redirects=False
            ) as response:
                answer = Answer(response.status, _object(await body_of(response)))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._name}'s API cannot be reached ({type(error).__name__})") from error
        if not 200 <= answer.status < 300:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: Answer) -> ConnectorError:
        text = f"{self._name} answered {answer.status}{_complaint(answer.body)}"
        if self._ended and any(str(error.get("code")) == self._ended for error in _errors(answer.body)):
            return CarrierCallOver(text)
        match answer.status:
            case 401:
                return CredentialsRefused(f"{text}; check {self._check}")
            case 403:
                return Internal(f"{text}; check {self._check}")
            case 404 | 410:
                return NotFound(text)
            case 429:
                return ResourceExhausted(text)
            case status if status >= 500:
                return Unavailable(text)
            case status if status >= 400:
                return FailedPrecondition(text)
        return Unavailable(f"the answer ({answer.status}) is not from {self._name}'s API; check {self._check}")


async def body_of(response: aiohttp.ClientResponse) -> bytes:
    """Returns the whole body. Empty if it is too long, incomplete or not received in time: the status, which has
    arrived, is sufficient then."""
    body = bytearray()
    try:
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > _LONGEST_ANSWER:
                return b""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return b""
    return bytes(body)


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        loaded = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _errors(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    errors = body.get("errors")
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _complaint(body: Mapping[str, Any]) -> str:
    """Returns the carrier's error text, from a list of errors or a single string."""
    errors = _errors(body)
    said = [errors[0].get(name) for name in ("code", "title", "detail")] if errors else [body.get("error")]
    text = " ".join(" ".join(str(each).split()) for each in said if isinstance(each, str | int))
    return f": {text[:_LONGEST_COMPLAINT]}" if text else ""
